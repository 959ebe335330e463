//! Drives the crates `spiffe` and `spiffe-rustls` against a Workload API; the contract is in ../README.md.

mod mtls;

use serde_json::{Map, Value, json};
use spiffe::{JwtSource, JwtSvid, WorkloadApiClient, X509Source, X509Svid};
use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;
use x509_parser::prelude::{FromDer, X509Certificate};

type Outcome = Result<(), Box<dyn Error>>;

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const ROTATE_TIMEOUT: Duration = Duration::from_secs(90);
const OTHER_AUDIENCE: &str = "another-audience";

fn emit(line: Value) {
    println!("{line}");
    std::io::stdout().flush().expect("stdout is open");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            emit(json!({ "error": causes(error.as_ref()) }));
            ExitCode::FAILURE
        }
    }
}

/// An error's text with those of its causes, which `Display` alone leaves out.
fn causes(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", causes(cause)),
        None => error.to_string(),
    }
}

async fn run() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["x509"] => timeout(CALL_TIMEOUT, x509()).await?,
        ["rotate"] => timeout(ROTATE_TIMEOUT, rotate()).await?,
        ["jwt", audience] => timeout(CALL_TIMEOUT, jwt(audience)).await?,
        ["bundles"] => timeout(CALL_TIMEOUT, bundles()).await?,
        ["serve"] => mtls::serve(source().await?, CALL_TIMEOUT).await,
        ["dial", port, expected] => mtls::dial(source().await?, port.parse()?, expected, CALL_TIMEOUT).await,
        _ => Err("usage: x509 | rotate | jwt AUD | bundles | serve | dial PORT EXPECTED_ID".into()),
    }
}

async fn source() -> Result<X509Source, Box<dyn Error>> {
    Ok(timeout(CALL_TIMEOUT, X509Source::new()).await??)
}

async fn x509() -> Outcome {
    let client = WorkloadApiClient::connect_env().await?;
    let context = client.fetch_x509_context().await?;
    let svid = context.default_svid().ok_or("no default SVID")?;
    let bundle = context
        .bundle_set()
        .get(svid.spiffe_id().trust_domain())
        .ok_or("no bundle")?;
    let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes())?;
    emit(json!({
        "id": svid.spiffe_id().to_string(),
        "hint": svid.hint().unwrap_or_default(),
        "chain": svid.cert_chain().len(),
        "bundle": bundle.authorities().len(),
        "notAfter": leaf.validity().not_after.timestamp(),
    }));
    Ok(())
}

async fn rotate() -> Outcome {
    let source = source().await?;
    let mut updates = source.updated();
    let mut serials = BTreeSet::new();
    loop {
        let serial = serial_of(&*source.svid()?)?;
        emit(json!({ "serial": serial }));
        serials.insert(serial);
        if serials.len() == 2 {
            return Ok(());
        }
        updates.changed().await?;
    }
}

fn serial_of(svid: &X509Svid) -> Result<String, Box<dyn Error>> {
    let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes())?;
    Ok(leaf.serial.to_str_radix(16))
}

async fn jwt(audience: &str) -> Outcome {
    let source = JwtSource::new().await?;
    let client = WorkloadApiClient::connect_env().await?;
    let fetched = source.fetch_jwt_svid([audience]).await?;
    let token = fetched.token();
    let local = JwtSvid::parse_and_validate(token, &source, &[audience])?;
    let remote = client.validate_jwt_token(audience, token).await?;
    let refused_locally = JwtSvid::parse_and_validate(token, &source, &[OTHER_AUDIENCE]).err();
    let refused_remotely = client.validate_jwt_token(OTHER_AUDIENCE, token).await.err();
    emit(json!({
        "local": { "sub": local.spiffe_id().to_string(), "aud": local.audience() },
        "remote": { "sub": remote.spiffe_id().to_string(), "aud": remote.audience() },
        "refused": {
            "local": refused_locally.map_or(String::new(), |error| causes(&error)),
            "remote": refused_remotely.map_or(String::new(), |error| causes(&error)),
        },
    }));
    Ok(())
}

async fn bundles() -> Outcome {
    let client = WorkloadApiClient::connect_env().await?;
    let x509_bundles = client.fetch_x509_bundles().await?;
    let jwt_bundles = client.fetch_jwt_bundles().await?;
    let authorities: Map<String, Value> = x509_bundles
        .iter()
        .map(|(name, bundle)| (name.to_string(), bundle.authorities().len().into()))
        .collect();
    let keys: Map<String, Value> = jwt_bundles
        .iter()
        .map(|(name, bundle)| {
            (
                name.to_string(),
                bundle.jwt_authorities().map(|key| key.key_id()).collect(),
            )
        })
        .collect();
    emit(json!({ "x509": authorities, "jwt": keys }));
    Ok(())
}
