//! Content codings of a body (RFC 9110, section 8.4.1). Pure.
//!
//! No request asks for a coding. Some servers and proxies compress all the same, and a rotated refresh token is as
//! precious in a compressed response as in a plain one. What is decoded has the limit of a plain body.

use std::io::{self, Read};

use zeroize::Zeroizing;

/// A coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    /// With a zlib header, as the standard says, or without, as some servers send it.
    Deflate,
    Brotli,
    Zstandard,
}

/// More codings than any server applies.
const MOST_CODINGS: usize = 4;

/// Returns the body without the codings that these header values name, in the order in which they were applied. The body
/// stays as it is if it is not coded as the header says: proxies decode a body and leave the header.
///
/// # Errors
/// The body is larger than `limit` bytes without its codings.
pub(super) fn decoded<'a>(
    body: Zeroizing<Vec<u8>>,
    values: impl Iterator<Item = &'a str>,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, TooLarge> {
    let mut codings: Vec<Coding> = values.flat_map(|value| value.split(',')).filter_map(named).collect();
    if codings.is_empty() {
        codings.extend(recognised(&body));
    }
    if codings.len() > MOST_CODINGS {
        return Ok(body);
    }
    let mut plain: Option<Zeroizing<Vec<u8>>> = None;
    for coding in codings.into_iter().rev() {
        match undo(coding, plain.as_deref().unwrap_or(&body), limit) {
            Ok(text) if text.len() > limit => return Err(TooLarge),
            Ok(text) => plain = Some(text),
            Err(_) => return Ok(body),
        }
    }
    Ok(plain.unwrap_or(body))
}

/// The body is too large without its codings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

fn named(name: &str) -> Option<Coding> {
    let name = name.trim();
    let is = |coding: &str| name.eq_ignore_ascii_case(coding);
    match () {
        () if is("gzip") || is("x-gzip") => Some(Coding::Gzip),
        () if is("deflate") => Some(Coding::Deflate),
        () if is("br") => Some(Coding::Brotli),
        () if is("zstd") => Some(Coding::Zstandard),
        () => None,
    }
}

/// Recognises a coding that no header names, by the first bytes, which begin no JSON and no form.
fn recognised(body: &[u8]) -> Option<Coding> {
    match body {
        [0x1f, 0x8b, ..] => Some(Coding::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Coding::Zstandard),
        _ => None,
    }
}

/// Undoes one coding. Reads one byte more than `limit` at most.
fn undo(coding: Coding, coded: &[u8], limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    match coding {
        Coding::Gzip => read(flate2::read::MultiGzDecoder::new(coded), limit).or_else(|_| padded_gzip(coded, limit)),
        Coding::Deflate => read(flate2::read::ZlibDecoder::new(coded), limit)
            .or_else(|_| read(flate2::read::DeflateDecoder::new(coded), limit)),
        Coding::Brotli => read(brotli_decompressor::Decompressor::new(coded, 4_096), limit),
        Coding::Zstandard => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(coded).map_err(io::Error::other)?;
            read(decoder, limit)
        }
    }
}

/// Undoes gzip with zeros behind its end, as files of whole blocks have them.
fn padded_gzip(coded: &[u8], limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut decoder = flate2::bufread::GzDecoder::new(coded);
    let plain = read(&mut decoder, limit)?;
    let padding = decoder.into_inner();
    if padding.iter().all(|byte| *byte == 0) { Ok(plain) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn read(decoder: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Allocated once, so that no copy of a token stays in memory when the buffer grows.
    let mut plain = Zeroizing::new(Vec::with_capacity(limit + 1));
    decoder.take(limit as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write};

    use super::*;

    const LIMIT: usize = 64 * 1024;

    /// `{"error":"invalid_grant"}`, by the reference implementation.
    const BROTLI: &[u8] = b"\x0b\x0c\x80{\"error\":\"invalid_grant\"}\x03";

    pub(in crate::idp) fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn undone(body: &[u8], header: &[&str]) -> Result<Vec<u8>, TooLarge> {
        decoded(body.to_vec().into(), header.iter().copied(), LIMIT).map(|plain| plain.to_vec())
    }

    #[test]
    fn every_coding_is_undone() {
        let plain = br#"{"error":"invalid_grant"}"#;
        let table: [(&[&str], Vec<u8>); 16] = [
            (&[], plain.to_vec()),
            (&["identity"], plain.to_vec()),
            (&["gzip"], gzip(plain)),
            (&["x-gzip"], gzip(plain)),
            (&["GZip"], gzip(plain)),
            (&["deflate"], zlib(plain)),
            (&["deflate"], deflate(plain)),
            (&["br"], BROTLI.to_vec()),
            (&["zstd"], zstd(plain)),
            // In the order in which they were applied.
            (&["deflate, gzip"], gzip(&zlib(plain))),
            (&["deflate", "gzip"], gzip(&zlib(plain))),
            (&["identity, gzip"], gzip(plain)),
            // Without a header that says so.
            (&[], gzip(plain)),
            (&["identity"], zstd(plain)),
            // Two members of one gzip file.
            (&["gzip"], [gzip(&plain[..9]), gzip(&plain[9..])].concat()),
            (&["gzip"], [gzip(plain), vec![0; 7]].concat()),
        ];
        for (header, body) in table {
            assert_eq!(undone(&body, header).unwrap(), plain, "{header:?}");
        }
    }

    #[test]
    fn a_body_that_is_not_coded_as_the_header_says_stays_as_it_is() {
        let plain = br#"{"error":"invalid_grant"}"#;
        for header in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "compress", "gzip, gzip, gzip, gzip, gzip"] {
            assert_eq!(undone(plain, &[header]).unwrap(), plain, "{header}");
        }
        for coded in [gzip(plain), zlib(plain), zstd(plain)] {
            let cut = &coded[..coded.len() - 6];
            let header = if coded[0] == 0x1f {
                "gzip"
            } else if coded[0] == 0x28 {
                "zstd"
            } else {
                "deflate"
            };
            assert_eq!(undone(cut, &[header]).unwrap(), cut, "{header}: half a token is worse than none");
        }
    }

    #[test]
    fn what_comes_out_is_limited() {
        let bomb = vec![b' '; 50 * LIMIT];
        for (header, body) in [("gzip", gzip(&bomb)), ("deflate", zlib(&bomb)), ("zstd", zstd(&bomb))] {
            assert!(body.len() < LIMIT);
            assert_eq!(undone(&body, &[header]), Err(TooLarge), "{header}");
        }
        assert_eq!(undone(&gzip(&vec![b' '; LIMIT]), &["gzip"]).unwrap().len(), LIMIT);
    }
}
