//! Mutual TLS with rustls over a blocking socket; the X509Source renews on the runtime's worker thread.

use crate::{Outcome, emit};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use serde_json::json;
use spiffe::X509Source;
use spiffe::cert::spiffe_id_from_der;
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Answers one verified peer; a peer that fails the handshake is reported and the next one is awaited.
pub async fn serve(source: X509Source, timeout: Duration) -> Outcome {
    let trust_domain = source.svid()?.spiffe_id().trust_domain().clone();
    let config = mtls_server(source)
        .authorize(authorizer::trust_domains([trust_domain])?)
        .build()?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    emit(json!({ "port": listener.local_addr()?.port() }));
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_read_timeout(Some(timeout))?;
        match answer(socket, ServerConnection::new(Arc::clone(&config))?) {
            Ok(peer) => {
                emit(json!({ "peer": peer }));
                return Ok(());
            }
            Err(refusal) => emit(json!({ "refused": refusal.to_string() })),
        }
    }
}

fn answer(mut socket: TcpStream, mut connection: ServerConnection) -> Result<String, Box<dyn Error>> {
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let peer = peer_id(connection.peer_certificates())?;
    let mut stream = StreamOwned::new(connection, socket);
    writeln!(stream, "{peer}")?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(peer)
}

pub async fn dial(source: X509Source, port: u16, expected: &str, timeout: Duration) -> Outcome {
    let config = mtls_client(source).authorize(authorizer::exact([expected])?).build()?;
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(timeout))?;
    // A name is mandatory in rustls; the peer is verified by its SPIFFE ID alone.
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let peer = peer_id(connection.peer_certificates())?;
    let mut seen = String::new();
    BufReader::new(StreamOwned::new(connection, socket)).read_line(&mut seen)?;
    emit(json!({ "peer": peer, "seen": seen.trim() }));
    Ok(())
}

fn peer_id(certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>) -> Result<String, Box<dyn Error>> {
    let leaf = certificates.and_then(<[_]>::first).ok_or("no peer certificate")?;
    Ok(spiffe_id_from_der(leaf)?.to_string())
}
