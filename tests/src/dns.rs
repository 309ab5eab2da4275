//! A scripted DNS server: answers questions about names as told, over UDP and TCP.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// What is said of each name.
pub type Script = BTreeMap<String, Vec<Answer>>;

/// One answer. Those of a name are used up in order for each type of question, the last one
/// for good.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// IPv4 addresses.
    pub a: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub aaaa: Vec<Ipv6Addr>,
    /// Another name for it, whose addresses these are.
    pub cname: Option<String>,
    /// Seconds that the answer holds. Default 60.
    pub ttl: Option<u32>,
    /// The response code instead: 2 that the server failed, 3 that there is no such name.
    pub code: Option<u8>,
    /// No answer at all.
    pub silent: bool,
    /// Over UDP only that the answer is too long, so that it is asked for over TCP.
    pub truncated: bool,
}

/// A running server.
pub struct Server {
    tasks: Vec<JoinHandle<()>>,
}

/// Number of the type of a question for IPv4 addresses.
const A: u16 = 1;
/// Number of the type of a question for IPv6 addresses.
const AAAA: u16 = 28;
/// Number of the type of a record that names another name.
const CNAME: u16 = 5;
/// Length of the header of a message.
const HEADER: usize = 12;

struct Names {
    script: Script,
    asked: Mutex<BTreeMap<(String, u16), usize>>,
}

impl Server {
    /// Answers on `port` of the loopback address.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(script: &Script, port: u16) -> io::Result<Self> {
        let names = Arc::new(Names {
            script: script.clone(),
            asked: Mutex::default(),
        });
        let tcp = crate::ports::reuse(port).await?;
        let udp = bind_again(port).await?;
        let tasks = vec![
            tokio::spawn(serve_udp(udp, Arc::clone(&names))),
            tokio::spawn(serve_tcp(tcp, names)),
        ];
        Ok(Self { tasks })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Binds a port that a server before this one may hold for another moment.
async fn bind_again(port: u16) -> io::Result<UdpSocket> {
    for _ in 0..100 {
        match UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await
}

async fn serve_udp(socket: UdpSocket, names: Arc<Names>) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let query = buffer.get(..length).unwrap_or_default();
        if let Some(reply) = names.reply(query, true) {
            socket.send_to(&reply, peer).await.ok();
        }
    }
}

async fn serve_tcp(listener: TcpListener, names: Arc<Names>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve_connection(stream, Arc::clone(&names)));
    }
}

async fn serve_connection(mut stream: TcpStream, names: Arc<Names>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        if let Some(reply) = names.reply(&query, false) {
            let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
            let framed = [&length.to_be_bytes()[..], &reply].concat();
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }
}

impl Names {
    /// The reply to a query; none to what is not understood or is to stay without one.
    fn reply(&self, query: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let (name, end) = read_name(query)?;
        let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        let question = query.get(HEADER..end + 4)?;
        let answer = self.answer(&name, kind);
        if answer.silent {
            return None;
        }
        let truncated = answer.truncated && datagram;
        let records = match truncated {
            true => Vec::new(),
            false => answer.records(kind),
        };
        let flags = 0x8180 | u16::from(answer.code.unwrap_or(0)) | u16::from(truncated) << 9;
        let count = u16::try_from(records.len()).ok()?;
        let mut reply = query.get(..2)?.to_vec();
        for number in [flags, 1, count, 0, 0] {
            reply.extend(number.to_be_bytes());
        }
        reply.extend(question);
        reply.extend(records.concat());
        Some(reply)
    }

    fn answer(&self, name: &str, kind: u16) -> Answer {
        let Some(answers) = self.script.get(name) else {
            return Answer {
                code: Some(3),
                ..Answer::default()
            };
        };
        let mut asked = self.asked.lock();
        let used = asked.entry((name.to_owned(), kind)).or_default();
        let answer = answers.get(*used).or_else(|| answers.last());
        *used += 1;
        answer.cloned().unwrap_or_default()
    }
}

impl Answer {
    /// The records of a type.
    fn records(&self, kind: u16) -> Vec<Vec<u8>> {
        let addresses: Vec<IpAddr> = match kind {
            A => self.a.iter().copied().map(IpAddr::V4).collect(),
            AAAA => self.aaaa.iter().copied().map(IpAddr::V6).collect(),
            _ => Vec::new(),
        };
        let ttl = self.ttl.unwrap_or(60);
        let alias = self.cname.as_deref().map(write_name);
        // The name of the question, by a pointer, or the alias.
        let owner = alias.clone().unwrap_or_else(|| vec![0xc0, 12]);
        let to_alias = alias.map(|alias| record(&[0xc0, 12], CNAME, ttl, &alias));
        let of_address = |address: &IpAddr| match address {
            IpAddr::V4(ip) => record(&owner, A, ttl, &ip.octets()),
            IpAddr::V6(ip) => record(&owner, AAAA, ttl, &ip.octets()),
        };
        to_alias
            .into_iter()
            .chain(addresses.iter().map(of_address))
            .collect()
    }
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let mut record = owner.to_vec();
    record.extend(kind.to_be_bytes());
    record.extend(1_u16.to_be_bytes());
    record.extend(ttl.to_be_bytes());
    record.extend(length.to_be_bytes());
    record.extend(data);
    record
}

/// The name of the first question, in small letters, and where it ends.
fn read_name(query: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

fn write_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(write_name(name));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        bytes
    }

    fn names(script: &str) -> Names {
        Names {
            script: serde_yaml_ng::from_str(script).expect("a script"),
            asked: Mutex::default(),
        }
    }

    #[test]
    fn answers_are_used_up_in_order_for_each_type() {
        let names = names("one.test: [{a: [127.0.0.1], ttl: 7}, {code: 3}]");
        let first = names.reply(&query("one.test", A), true).expect("a reply");
        assert_eq!(first.get(..2), Some(&[0xab, 0xcd][..]));
        assert_eq!(first.get(6..8), Some(&[0, 1][..]), "one record");
        assert!(first.ends_with(&[0, 0, 0, 7, 0, 4, 127, 0, 0, 1]));
        let other_type = names.reply(&query("one.test", AAAA), true);
        assert_eq!(
            other_type.expect("a reply").get(6..8),
            Some(&[0, 0][..]),
            "none of that type"
        );
        let second = names.reply(&query("one.test", A), true).expect("a reply");
        assert_eq!(second.get(3).map(|b| b & 15), Some(3));
    }

    #[test]
    fn a_name_that_is_not_in_the_script_does_not_exist() {
        let reply = names("{}").reply(&query("Two.Test", A), true);
        assert_eq!(reply.expect("a reply").get(3).map(|b| b & 15), Some(3));
    }

    #[test]
    fn a_truncated_answer_is_whole_over_tcp() {
        let names = names("one.test: [{a: [127.0.0.1], truncated: true}]");
        let datagram = names.reply(&query("one.test", A), true).expect("a reply");
        assert_eq!(datagram.get(2).map(|b| b & 2), Some(2));
        let stream = names.reply(&query("one.test", A), false).expect("a reply");
        assert_eq!(stream.get(6..8), Some(&[0, 1][..]));
    }

    #[test]
    fn what_is_no_query_gets_no_reply() {
        assert_eq!(names("{}").reply(&[1, 2, 3], true), None);
        assert_eq!(
            names("{one.test: [{silent: true}]}").reply(&query("one.test", A), true),
            None
        );
    }
}
