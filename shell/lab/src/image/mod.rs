//! Which images there are.
//!
//! A lab has no registry and unpacks no layers. It has two built-in images:
//! `portolan/echo`, the program's own [`crate::echo`] application, and `host`,
//! the machine's file system read-only. A table says which well-known names
//! stand for them; everything else is an image that cannot be pulled.
//!
//! Pure: from a name and a container's fields to a command.

mod argv;
mod table;

pub use argv::{Port, Wanted};
pub use table::{Arguments, Image, ImageTable, Serves, TableError};

/// Name of the built-in application's image.
pub const ECHO: &str = "portolan/echo";
/// Name of the image that shows the machine's file system.
pub const HOST: &str = "host";

/// What the table knows about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A built-in image under its own name.
    BuiltIn(&'a Image),
    /// A well-known name that a built-in image stands in for.
    Mapped(&'a Image),
    /// Nothing of that name.
    Unknown {
        /// Why it cannot be pulled.
        message: String,
    },
    /// Not a name of an image at all.
    Invalid {
        /// What is wrong with it.
        message: String,
    },
}

/// The name without registry defaults, tag and digest:
/// `docker.io/library/nginx:1.27@sha256:…` is `nginx`.
pub fn repository(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => name,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("index.docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// The name with everything that is implied, as a registry would be asked.
pub fn canonical(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let has_registry =
        image.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    let mut name = match (has_registry, image.contains('/')) {
        (true, _) => image.to_owned(),
        (false, true) => format!("docker.io/{image}"),
        (false, false) => format!("docker.io/library/{image}"),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    if !last.contains(':') && !last.contains('@') {
        name.push_str(":latest");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_registries_do() {
        for (image, name, whole) in [
            ("nginx", "nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "nginx", "docker.io/library/nginx:1.27"),
            (
                "docker.io/library/nginx:1.27",
                "nginx",
                "docker.io/library/nginx:1.27",
            ),
            (
                "curlimages/curl",
                "curlimages/curl",
                "docker.io/curlimages/curl:latest",
            ),
            (
                "localhost:5000/a/b",
                "localhost:5000/a/b",
                "localhost:5000/a/b:latest",
            ),
            (
                "registry.k8s.io/e2e-test-images/agnhost:2.53",
                "registry.k8s.io/e2e-test-images/agnhost",
                "registry.k8s.io/e2e-test-images/agnhost:2.53",
            ),
            (
                "busybox@sha256:0f",
                "busybox",
                "docker.io/library/busybox@sha256:0f",
            ),
        ] {
            assert_eq!(repository(image), name, "{image}");
            assert_eq!(canonical(image), whole, "{image}");
        }
    }
}
