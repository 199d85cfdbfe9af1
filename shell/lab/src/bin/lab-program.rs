//! The entry points that containers need, as a program of their own: what the
//! product's binary is in a lab, for this crate's tests.

fn main() {
    if let Some(code) = portolan_lab::container::init_main() {
        std::process::exit(code);
    }
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("echo") {
        std::process::exit(portolan_lab::echo::run(args));
    }
}
