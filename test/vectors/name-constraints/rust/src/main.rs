//! `name-constraints <roots.pem> <chain.pem>...`: what rustls-webpki says of each chain, one line `accept` or `refuse <why>` for each.
use std::env::args;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring};

fn read(path: &str) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_file_iter(path).expect(path);
    certificates.map(|one| one.expect(path)).collect()
}

fn verify(roots: &[CertificateDer<'static>], chain: &[CertificateDer<'static>]) -> Result<(), String> {
    let anchors: Vec<_> = roots.iter().map(|root| anchor_from_trusted_cert(root).expect("a root")).collect();
    let leaf = EndEntityCert::try_from(&chain[0]).map_err(|error| format!("{error:?}"))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()));
    leaf.verify_for_usage(&[ring::ECDSA_P256_SHA256], &anchors, &chain[1..], now, KeyUsage::client_auth(), None, None)
        .map(|_| ())
        .map_err(|error| format!("{error:?}"))
}

fn main() {
    let paths: Vec<String> = args().skip(1).collect();
    let roots = read(&paths[0]);
    println!("rustls-webpki 0.103.17");
    for path in &paths[1..] {
        match verify(&roots, &read(path)) {
            Ok(()) => println!("accept"),
            Err(why) => println!("refuse {why}"),
        }
    }
}
