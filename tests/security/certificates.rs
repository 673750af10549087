//! Certificates for one run of the tests, made with the JDK's keytool.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::kit::broker::text;

/// The password of the key stores, which protect nothing.
pub const STORE_PASSWORD: &str = "changeit";

/// Creates `ca.pem`, `broker.p12` with a certificate for 127.0.0.1 that this authority has signed, and `other.pem` of
/// another authority.
pub fn make(dir: &Path) -> Result<(), String> {
    let pair = |store: &str, alias: &str, more: &[&str]| {
        let name = format!("CN={alias}");
        let fixed = ["-genkeypair", "-alias", alias, "-dname", &name, "-keyalg", "EC", "-groupname", "secp256r1"];
        keytool(dir, store, &[&fixed[..], &["-validity", "30"], more].concat())
    };
    let authority = ["-ext", "bc:c", "-ext", "ku:c=keyCertSign"];
    pair("ca.p12", "ca", &authority)?;
    keytool(dir, "ca.p12", &["-exportcert", "-alias", "ca", "-rfc", "-file", "ca.pem"])?;
    pair("other.p12", "other", &authority)?;
    keytool(dir, "other.p12", &["-exportcert", "-alias", "other", "-rfc", "-file", "other.pem"])?;
    pair("broker.p12", "broker", &[])?;
    keytool(dir, "broker.p12", &["-certreq", "-alias", "broker", "-file", "broker.csr"])?;
    let sign = ["-gencert", "-alias", "ca", "-infile", "broker.csr", "-outfile", "broker.pem", "-rfc"];
    keytool(dir, "ca.p12", &[&sign[..], &["-ext", "san=ip:127.0.0.1", "-validity", "30"]].concat())?;
    keytool(dir, "broker.p12", &["-importcert", "-alias", "ca", "-file", "ca.pem", "-noprompt"])?;
    keytool(dir, "broker.p12", &["-importcert", "-alias", "broker", "-file", "broker.pem"])
}

/// Creates `NAME.p12` with a client certificate of the authority, which expires after this many seconds.
pub fn client(dir: &Path, name: &str, seconds: u32) {
    let store = format!("{name}.p12");
    let own = |args: &[&str]| keytool(dir, &store, args).expect("a key store");
    let subject = format!("CN={name}");
    own(&["-genkeypair", "-alias", name, "-dname", &subject, "-keyalg", "EC", "-groupname", "secp256r1"]);
    let (request, signed) = (format!("{name}.csr"), format!("{name}.pem"));
    own(&["-certreq", "-alias", name, "-file", &request]);
    // keytool takes the validity only in days.
    let (start, sign) = (format!("-1d+{seconds}S"), ["-gencert", "-alias", "ca", "-rfc", "-validity", "1"]);
    let files = ["-infile", &request, "-outfile", &signed, "-startdate", &start];
    keytool(dir, "ca.p12", &[&sign[..], &files].concat()).expect("a certificate");
    own(&["-importcert", "-alias", "ca", "-file", "ca.pem", "-noprompt"]);
    own(&["-importcert", "-alias", name, "-file", &signed]);
}

fn keytool(dir: &Path, store: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new("keytool")
        .args(args)
        .args(["-keystore", &text(&dir.join(store)), "-storetype", "PKCS12", "-storepass", STORE_PASSWORD])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("keytool, which comes with Java: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("keytool {args:?}: {}", String::from_utf8_lossy(&output.stdout))),
    }
}
