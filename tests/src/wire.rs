//! RocketMQ remoting from the outside: frames and one blocking connection.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of what follows |
//! | 4 | 1 | header's encoding: 0 JSON, 1 binary |
//! | 5 | 3 | header length |
//! | 8 | n | header |
//! | 8 + n | rest | body |

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// What the server closes a connection for.
pub const FRAME_MAX: usize = 16 * 1024 * 1024;

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request as a client writes it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Request code.
    pub code: i32,
    /// Header fields, in order.
    pub fields: Vec<(String, String)>,
    /// Body bytes.
    pub body: Vec<u8>,
    /// No reply wanted.
    pub oneway: bool,
}

impl Request {
    /// A request without fields or body.
    pub fn new(code: i32) -> Request {
        Request {
            code,
            ..Request::default()
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl ToString) -> Request {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    /// Takes a header field out again, for requests that lack one.
    #[must_use]
    pub fn without(mut self, name: &str) -> Request {
        self.fields.retain(|(field, _)| field != name);
        self
    }

    /// Replaces the value of a header field.
    #[must_use]
    pub fn with(self, name: &str, value: impl ToString) -> Request {
        self.without(name).field(name, value)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// The whole frame, header in JSON.
    pub fn to_frame(&self, opaque: i32) -> Vec<u8> {
        let fields: Map<String, Value> = self
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let mut header = json!({
            "code": self.code,
            "flag": if self.oneway { 2 } else { 0 },
            "language": "JAVA",
            "opaque": opaque,
            "serializeTypeCurrentRPC": "JSON",
            "version": 409,
        });
        if !fields.is_empty() {
            header["extFields"] = Value::Object(fields);
        }
        frame(0, header.to_string().as_bytes(), &self.body)
    }

    /// The whole frame, header in RocketMQ's binary encoding.
    pub fn to_binary_frame(&self, opaque: i32) -> Vec<u8> {
        let mut fields = Vec::new();
        for (name, value) in &self.fields {
            let name_len = u16::try_from(name.len()).expect("field names are short");
            fields.extend_from_slice(&name_len.to_be_bytes());
            fields.extend_from_slice(name.as_bytes());
            fields.extend_from_slice(&be32(value.len()));
            fields.extend_from_slice(value.as_bytes());
        }
        let code = i16::try_from(self.code).expect("only 16-bit codes fit the binary header");
        let mut header = Vec::new();
        header.extend_from_slice(&code.to_be_bytes());
        header.push(0); // Java
        header.extend_from_slice(&409_i16.to_be_bytes());
        header.extend_from_slice(&opaque.to_be_bytes());
        header.extend_from_slice(&(if self.oneway { 2_i32 } else { 0 }).to_be_bytes());
        header.extend_from_slice(&be32(0));
        header.extend_from_slice(&be32(fields.len()));
        header.extend_from_slice(&fields);
        frame(1, &header, &self.body)
    }
}

/// Puts the two length words before a header and a body.
pub fn frame(encoding: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + header.len() + body.len());
    out.extend_from_slice(&be32(4 + header.len() + body.len()));
    let header_len = be32(header.len());
    out.push(encoding);
    out.extend_from_slice(&header_len[1..]);
    out.extend_from_slice(header);
    out.extend_from_slice(body);
    out
}

fn be32(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("test frames are small")
        .to_be_bytes()
}

/// A reply as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Response code.
    pub code: i32,
    /// Which request it answers.
    pub opaque: i32,
    /// Flag bits: bit 0 tells a response.
    pub flag: i32,
    /// Free text.
    pub remark: String,
    /// Header fields.
    pub fields: BTreeMap<String, String>,
    /// Body bytes.
    pub body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Result<Reply> {
        ensure!(bytes.len() >= 4, "a frame of {} bytes", bytes.len());
        let encoding = bytes[0];
        let header_len = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize;
        ensure!(
            header_len <= bytes.len() - 4,
            "header of {header_len} in {}",
            bytes.len()
        );
        let (header, body) = bytes[4..].split_at(header_len);
        let mut reply = match encoding {
            0 => Reply::from_json(header)?,
            1 => Reply::from_binary(header)?,
            other => bail!("header encoding {other}"),
        };
        reply.body = body.to_vec();
        Ok(reply)
    }

    fn from_json(header: &[u8]) -> Result<Reply> {
        let header: Value = serde_json::from_slice(header).context("the reply's header")?;
        let number = |name: &str| {
            let value = header.get(name).and_then(Value::as_i64);
            value
                .and_then(|value| i32::try_from(value).ok())
                .with_context(|| format!("no {name}"))
        };
        let mut fields = BTreeMap::new();
        if let Some(found) = header.get("extFields").and_then(Value::as_object) {
            for (name, value) in found {
                let value = value
                    .as_str()
                    .with_context(|| format!("field {name} is no text"))?;
                fields.insert(name.clone(), value.to_owned());
            }
        }
        Ok(Reply {
            code: number("code")?,
            opaque: number("opaque")?,
            flag: number("flag")?,
            remark: header
                .get("remark")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            fields,
            body: Vec::new(),
        })
    }

    fn from_binary(header: &[u8]) -> Result<Reply> {
        let mut rest = header;
        let mut take = |count: usize| -> Result<&[u8]> {
            ensure!(rest.len() >= count, "the binary header is cut short");
            let (head, tail) = rest.split_at(count);
            rest = tail;
            Ok(head)
        };
        let short = |bytes: &[u8]| i16::from_be_bytes([bytes[0], bytes[1]]);
        let int = |bytes: &[u8]| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let code = i32::from(short(take(2)?));
        take(3)?;
        let opaque = int(take(4)?);
        let flag = int(take(4)?);
        let remark_len = usize::try_from(int(take(4)?)).context("remark length")?;
        let remark = String::from_utf8(take(remark_len)?.to_vec()).context("remark")?;
        let mut left = usize::try_from(int(take(4)?)).context("fields length")?;
        let mut fields = BTreeMap::new();
        while left > 0 {
            let name_len = usize::try_from(short(take(2)?)).context("name length")?;
            let name = String::from_utf8(take(name_len)?.to_vec()).context("field name")?;
            let value_len = usize::try_from(int(take(4)?)).context("value length")?;
            let value = String::from_utf8(take(value_len)?.to_vec()).context("field value")?;
            left = left
                .checked_sub(6 + name_len + value_len)
                .context("fields length")?;
            fields.insert(name, value);
        }
        Ok(Reply {
            code,
            opaque,
            flag,
            remark,
            fields,
            body: Vec::new(),
        })
    }

    /// Whether this answers a request (the broker also sends requests of its own).
    pub fn is_response(&self) -> bool {
        self.flag & 1 == 1
    }

    /// A header field as text.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.fields.get(name).map(String::as_str).with_context(|| {
            format!(
                "reply {} ({}) lacks the field {name}",
                self.code, self.remark
            )
        })
    }

    /// A header field as a number.
    pub fn number(&self, name: &str) -> Result<i64> {
        let text = self.text(name)?;
        text.parse()
            .with_context(|| format!("field {name} = '{text}'"))
    }
}

/// One blocking connection with one request under way at a time.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_opaque: i32,
}

impl Connection {
    /// Connects; a name that does not resolve or a port that does not answer within 2 s is an error.
    pub fn open(address: &str) -> Result<Connection> {
        let resolved: SocketAddr = address
            .to_socket_addrs()
            .with_context(|| format!("resolve {address}"))?
            .next()
            .with_context(|| format!("{address} has no address"))?;
        let stream = TcpStream::connect_timeout(&resolved, Duration::from_secs(2))
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set nodelay")?;
        stream
            .set_write_timeout(Some(WRITE_TIMEOUT))
            .context("set the timeout")?;
        Ok(Connection {
            stream,
            next_opaque: 1,
        })
    }

    /// Writes bytes as they are.
    pub fn write_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("write")
    }

    /// Writes a request and returns its opaque, without waiting for the reply.
    pub fn write(&mut self, request: &Request) -> Result<i32> {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        self.write_raw(&request.to_frame(opaque))?;
        Ok(opaque)
    }

    /// As [`Connection::write`], giving up when the other side takes nothing for `within`.
    pub fn write_within(&mut self, request: &Request, within: Duration) -> Result<i32> {
        self.stream
            .set_write_timeout(Some(within))
            .context("set the timeout")?;
        let written = self.write(request);
        self.stream
            .set_write_timeout(Some(WRITE_TIMEOUT))
            .context("set the timeout")?;
        written
    }

    /// The next response, skipping requests that the server sends.
    pub fn read(&mut self, within: Duration) -> Result<Reply> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no reply within {within:?}");
            self.stream
                .set_read_timeout(Some(left))
                .context("set the timeout")?;
            let mut length = [0_u8; 4];
            self.stream
                .read_exact(&mut length)
                .context("read a reply")?;
            let length = u32::from_be_bytes(length) as usize;
            ensure!(length <= FRAME_MAX, "a reply of {length} bytes");
            let mut bytes = vec![0; length];
            self.stream
                .read_exact(&mut bytes)
                .context("read the rest of a reply")?;
            let reply = Reply::parse(&bytes)?;
            if reply.is_response() {
                return Ok(reply);
            }
        }
    }

    /// Sends a request and waits for its reply.
    pub fn call(&mut self, request: &Request, within: Duration) -> Result<Reply> {
        let opaque = self.write(request)?;
        let deadline = Instant::now() + within;
        loop {
            let reply = self.read(deadline.saturating_duration_since(Instant::now()))?;
            if reply.opaque == opaque {
                return Ok(reply);
            }
        }
    }

    /// Whether the server has closed this connection, waiting at most `within` for that.
    pub fn is_closed(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut buffer = [0_u8; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
                    match error.kind() {
                        Interrupted => {}
                        TimedOut | WouldBlock => return false,
                        _ => return true,
                    }
                }
            }
        }
    }

    /// Closes this side for writing only.
    pub fn half_close(&self) -> Result<()> {
        self.stream
            .shutdown(std::net::Shutdown::Write)
            .context("shut down writing")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the published Java classes produce for "route of topic T, opaque 7" (version 0 there).
    #[test]
    fn json_frame_has_the_lengths_of_the_java_client() {
        let header = br#"{"code":105,"extFields":{"topic":"T"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":0}"#;
        let bytes = frame(0, header, b"");
        assert_eq!(bytes[..8], [0, 0, 0, 0x7d, 0, 0, 0, 0x79]);
    }

    /// A frame written by this module reads back, in both encodings.
    #[test]
    fn a_frame_reads_back_in_both_encodings() {
        let request = Request::new(34)
            .field("k", "v")
            .field("n", 12)
            .body(*b"\x01\x02");
        for bytes in [request.to_frame(9), request.to_binary_frame(9)] {
            let read = Reply::parse(&bytes[4..]).expect("own bytes");
            assert_eq!((read.code, read.opaque, read.flag), (34, 9, 0));
            assert_eq!(read.text("k").expect("there"), "v");
            assert_eq!(read.number("n").expect("there"), 12);
            assert_eq!(read.body, [1, 2]);
        }
    }

    /// Cut frames are errors, never panics.
    #[test]
    fn cut_frames_are_errors() {
        let bytes = Request::new(34).field("k", "v").to_binary_frame(9);
        for end in 4..bytes.len() {
            assert!(Reply::parse(&bytes[4..end]).is_err(), "cut at {end}");
        }
    }
}
