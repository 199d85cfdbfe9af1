//! The file that kubectl reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Pair;

/// Name of cluster, user and context in the file.
const NAME: &str = "portolan";

pub(super) fn render(server_url: &str, ca: &str, admin: &Pair) -> String {
    let ca = STANDARD.encode(ca);
    let certificate = STANDARD.encode(&admin.certificate);
    let key = STANDARD.encode(&admin.key);
    // A JSON text is also a YAML text, so quoting follows JSON's rules.
    let url = serde_json::Value::from(server_url);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {NAME}\n\
         \x20 cluster:\n\
         \x20   server: {url}\n\
         \x20   certificate-authority-data: {ca}\n\
         users:\n\
         - name: {NAME}\n\
         \x20 user:\n\
         \x20   client-certificate-data: {certificate}\n\
         \x20   client-key-data: {key}\n\
         contexts:\n\
         - name: {NAME}\n\
         \x20 context:\n\
         \x20   cluster: {NAME}\n\
         \x20   user: {NAME}\n\
         current-context: {NAME}\n"
    )
}
