//! HTTPS, with the authorities that the host has. Those are named in the environment, so each test that wants others
//! runs itself once more as a process of its own.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};

use super::servers::{Host, Server, Wire, program, say, serve};

const AGAIN: &str = "BATON_TEST_LINK";

/// A server with a certificate for 127.0.0.1, and the authority that it is from, in a file at `bundle`.
fn start(
    bundle: &Path,
    answer: impl Fn(&super::servers::Asked, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static,
) -> Server {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(bundle, pem(authority.der())).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |mut stream: TcpStream, speak: &dyn Fn(&mut dyn Wire)| {
        let mut session = ServerConnection::new(config.clone()).unwrap();
        speak(&mut Stream::new(&mut session, &mut stream));
        session.send_close_notify();
        let _ = session.write_tls(&mut stream);
    };
    Server::start_wrapped(Box::new(wrap), answer)
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn link(server: &Server, content: &[u8]) -> String {
    server.link("/noded", content).replace("http:", "https:")
}

/// What the test that runs as a process of its own finds.
fn again(link: &str, bundle: &Path) -> (bool, String) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let test = "https::obtains_what_the_environment_names";
    child.args(["--exact", test, "--nocapture", "--include-ignored"]);
    child.env(AGAIN, link).env("SSL_CERT_FILE", bundle).env_remove("SSL_CERT_DIR");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
#[ignore = "needs an environment that another test makes"]
fn obtains_what_the_environment_names() {
    let Ok(link) = std::env::var(AGAIN) else { return };
    let host = Host::new();
    host.obtain(&link).unwrap();
    host.assert_has(&program(100_000));
}

#[test]
fn a_certificate_of_nobody_known_is_refused() {
    let (host, content) = (Host::new(), program(100_000));
    let body = content.clone();
    let server = start(&host.outside("bundle.pem"), move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let others = host.outside("others.pem");
    drop(start(&others, |_, _| Ok(())));
    let (done, text) = again(&link(&server, &content), &others);
    assert!(!done && text.contains("is not trusted") && text.contains("SSL_CERT_FILE"), "{text}");
    assert!(server.asked().is_empty(), "it was asked for something all the same");
}

#[test]
fn an_authority_that_the_host_knows_is_trusted() {
    let (host, content) = (Host::new(), program(100_000));
    let (bundle, body) = (host.outside("bundle.pem"), content.clone());
    let server = start(&bundle, move |asked, wire| {
        // A first answer that breaks off, as over a plain connection.
        let cut = asked.from().is_none().then_some(40_000);
        serve(asked, wire, &body, "\"one\"", cut)
    });
    let (done, text) = again(&link(&server, &content), &bundle);
    assert!(done && text.contains("1 passed"), "{text}");
    assert_eq!(server.asked()[1].from(), Some(40_000));
}

#[test]
fn a_host_without_authorities_says_what_to_do() {
    let (host, content) = (Host::new(), program(100_000));
    let server = start(&host.outside("bundle.pem"), |_, wire| say(wire, "200 OK", "", b""));
    let none = host.outside("none.pem");
    std::fs::write(&none, "").unwrap();
    let (done, text) = again(&link(&server, &content), &none);
    assert!(!done && text.contains("has no CA certificates") && text.contains("ca-certificates"), "{text}");
}

#[test]
fn a_redirect_away_from_https_is_not_followed() {
    let (host, content) = (Host::new(), program(100_000));
    let (bundle, body) = (host.outside("bundle.pem"), content.clone());
    let plain = Server::start(move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let to = plain.url("/noded");
    let server = start(&bundle, move |_, wire| say(wire, "302 Found", &format!("Location: {to}\r\n"), b""));
    let (done, text) = again(&link(&server, &content), &bundle);
    assert!(!done && text.contains("leads away from https"), "{text}");
    assert!(plain.asked().is_empty());
}

#[test]
fn a_redirect_to_https_is_followed() {
    let (host, content) = (Host::new(), program(100_000));
    let (bundle, body) = (host.outside("bundle.pem"), content.clone());
    let secure = start(&bundle, move |asked, wire| serve(asked, wire, &body, "\"one\"", None));
    let to = secure.url("/noded").replace("http:", "https:");
    let server = Server::start(move |_, wire| say(wire, "302 Found", &format!("Location: {to}\r\n"), b""));
    let (done, text) = again(&server.link("/noded", &content), &bundle);
    assert!(done && text.contains("1 passed"), "{text}");
}

#[test]
fn a_server_that_speaks_no_tls_is_named() {
    let host = Host::new();
    let bundle = host.outside("bundle.pem");
    drop(start(&bundle, |_, _| Ok(())));
    let server = Server::start_wrapped(
        Box::new(|mut stream, _| {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }),
        |_, _| Ok(()),
    );
    let (done, text) = again(&link(&server, b""), &bundle);
    let named = text.contains("cannot speak TLS 1.3 with") || text.contains("cannot reach");
    assert!(!done && named && text.contains(&server.addr.to_string()), "{text}");
}
