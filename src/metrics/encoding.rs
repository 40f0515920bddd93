//! Families → bytes: the two formats that a gateway or a scrape takes, one family at a time.
//!
//! What leaves here is checked first. The Pushgateway answers 200 to some families that make every later scrape of it
//! fail (measured on 1.5.1: a name with a space in protobuf, `le` beside a histogram), for every user of that gateway.
//! A label set is a gate before us in [`crate::metrics`]; this is the wall behind the gate.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};

use flate2::write::GzEncoder;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Encoder, PROTOBUF_FORMAT, ProtobufEncoder, TextEncoder};

/// The text format 0.0.4. The crate's own constant leaves out the charset, and label values are UTF-8.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Small writes of the encoders are gathered to this many bytes before they are compressed.
const CHUNK_BYTES: usize = 32 * 1024;

/// How families are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Length-delimited protobuf: a third of the size, and never taken when cut off in transit.
    Protobuf,
    /// Prometheus' text format 0.0.4.
    Text,
}

/// How the written families are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip at its fastest level: label sets repeat so much that the higher ones gain little.
    Gzip,
    /// Not at all.
    None,
}

impl Format {
    /// The `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => PROTOBUF_FORMAT,
            Self::Text => TEXT_FORMAT,
        }
    }
}

impl Compression {
    /// The `Content-Encoding`, in the lower case that the Pushgateway insists on.
    pub const fn content_encoding(self) -> Option<&'static str> {
        match self {
            Self::Gzip => Some("gzip"),
            Self::None => None,
        }
    }
}

/// One whole exposition, ready to be sent.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The families, compressed when that was asked for.
    pub body: Vec<u8>,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The `Content-Encoding`, if any.
    pub content_encoding: Option<&'static str>,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// Families that were left out because of a flaw: a bug of ours each.
    pub left_out: Vec<Flaw>,
}

/// Why a family is not exposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("family {family:?}: {what}")]
pub struct Flaw {
    /// The family's name.
    pub family: String,
    /// What is wrong with it.
    pub what: String,
}

/// Encodes `families` one after the other, so that never all of them are in memory uncompressed. A family without
/// metrics is skipped (there is no way to write it), one with a [`Flaw`] is left out.
///
/// # Errors
///
/// When a family cannot be written, which for a body in memory is a bug of an encoder.
pub fn encode(
    families: impl Iterator<Item = MetricFamily>,
    format: Format,
    compression: Compression,
) -> io::Result<Encoded> {
    let ((plain_bytes, left_out), body) = match compression {
        Compression::Gzip => {
            let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            (write_families(families, format, &mut gzip)?, gzip.finish()?)
        }
        Compression::None => {
            let mut body = Vec::new();
            (write_families(families, format, &mut body)?, body)
        }
    };
    Ok(Encoded {
        body,
        content_type: format.content_type(),
        content_encoding: compression.content_encoding(),
        plain_bytes,
        left_out,
    })
}

/// Writes the families and returns how many bytes they took and which were left out.
fn write_families(
    families: impl Iterator<Item = MetricFamily>,
    format: Format,
    sink: &mut impl Write,
) -> io::Result<(u64, Vec<Flaw>)> {
    let mut writer = BufWriter::with_capacity(CHUNK_BYTES, Counting { inner: sink, bytes: 0 });
    let mut checker = Checker::default();
    let mut left_out = Vec::new();
    for family in families {
        if family.get_metric().is_empty() {
            continue;
        }
        if let Err(what) = checker.check(&family) {
            left_out.push(Flaw { family: family.name().to_owned(), what });
            continue;
        }
        let family = std::slice::from_ref(&family);
        let written = match format {
            Format::Protobuf => ProtobufEncoder::new().encode(family, &mut writer),
            Format::Text => TextEncoder::new().encode(family, &mut writer),
        };
        written.map_err(io::Error::other)?;
    }
    writer.flush()?;
    Ok((writer.get_ref().bytes, left_out))
}

/// Counts what passes through.
struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Labels that are not a family's to set: the gateway overwrites them with those of the group, so that two series that
/// differ only there become one twice.
const GROUPING: [&str; 2] = ["job", "instance"];

/// Looks at one family after the other of one exposition.
#[derive(Default)]
struct Checker {
    /// The sample names that are taken.
    taken: HashSet<String>,
}

impl Checker {
    fn check(&mut self, family: &MetricFamily) -> Result<(), String> {
        let name = family.name();
        if !is_metric_name(name) {
            return Err("the name is not one of Prometheus".to_owned());
        }
        let suffixes: &[&str] = match family.get_field_type() {
            MetricType::COUNTER | MetricType::GAUGE => &[""],
            MetricType::HISTOGRAM => &["", "_bucket", "_sum", "_count"],
            other => return Err(format!("type {other:?} is not one that kitepush has")),
        };
        let mut series = HashSet::with_capacity(family.get_metric().len());
        for metric in family.get_metric() {
            let labels = checked_labels(metric, suffixes.len() > 1)?;
            if !series.insert(labels) {
                return Err("a series stands twice".to_owned());
            }
        }
        for suffix in suffixes {
            let sample = format!("{name}{suffix}");
            if !self.taken.insert(sample) {
                return Err(format!("{name}{suffix} belongs to another family already"));
            }
        }
        Ok(())
    }
}

/// The labels of a metric in the order of their names.
fn checked_labels(metric: &Metric, histogram: bool) -> Result<Vec<(&str, &str)>, String> {
    if metric.has_timestamp_ms() {
        return Err("a sample has a timestamp, which the gateway refuses".to_owned());
    }
    let mut labels: Vec<_> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
    labels.sort_unstable();
    for (at, (name, _)) in labels.iter().enumerate() {
        if !is_label_name(name) || (histogram && *name == "le") || GROUPING.contains(name) {
            return Err(format!("label {name:?} is not allowed here"));
        }
        if at > 0 && labels[at - 1].0 == *name {
            return Err(format!("label {name:?} stands twice on one series"));
        }
    }
    Ok(labels)
}

fn is_metric_name(name: &str) -> bool {
    is_name(name, |byte| byte == b'_' || byte == b':')
}

/// Names that begin with two underscores are Prometheus' own.
fn is_label_name(name: &str) -> bool {
    is_name(name, |byte| byte == b'_') && !name.starts_with("__")
}

fn is_name(name: &str, also: impl Fn(u8) -> bool) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || also(byte);
    name.bytes().next().is_some_and(|first| !first.is_ascii_digit()) && name.bytes().all(allowed)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Read;

    use prometheus::proto::{Counter, LabelPair};

    use super::*;

    fn counter(name: &str, series: &[&[(&str, &str)]]) -> MetricFamily {
        let mut family = MetricFamily::new();
        family.set_name(name.to_owned());
        family.set_help("A help text with \\ and \n in it.".to_owned());
        family.set_field_type(MetricType::COUNTER);
        for labels in series {
            let mut metric = Metric::new();
            let mut value = Counter::new();
            value.set_value(1.0);
            metric.set_counter(value);
            metric.set_label(
                labels
                    .iter()
                    .map(|(name, value)| {
                        let mut pair = LabelPair::new();
                        pair.set_name((*name).to_owned());
                        pair.set_value((*value).to_owned());
                        pair
                    })
                    .collect(),
            );
            family.mut_metric().push(metric);
        }
        family
    }

    fn text(families: Vec<MetricFamily>) -> (String, Vec<Flaw>) {
        let encoded = encode(families.into_iter(), Format::Text, Compression::None).unwrap();
        assert_eq!(encoded.plain_bytes, encoded.body.len() as u64);
        (String::from_utf8(encoded.body).unwrap(), encoded.left_out)
    }

    #[test]
    fn help_and_label_values_are_escaped_in_text() {
        let (text, flaws) = text(vec![counter("a_total", &[&[("branch", "a\"b\\c\nd 🪁")]])]);
        assert_eq!(
            text,
            "# HELP a_total A help text with \\\\ and \\n in it.\n# TYPE a_total counter\n\
             a_total{branch=\"a\\\"b\\\\c\\nd 🪁\"} 1\n"
        );
        assert!(flaws.is_empty());
    }

    #[test]
    fn gzip_holds_the_same_bytes_and_the_plain_size_is_known() {
        let families = || vec![counter("a_total", &[&[("x", "1")], &[("x", "2")]]), counter("b_total", &[&[]])];
        let plain = encode(families().into_iter(), Format::Protobuf, Compression::None).unwrap();
        let packed = encode(families().into_iter(), Format::Protobuf, Compression::Gzip).unwrap();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain.body);
        assert_eq!(packed.plain_bytes, plain.body.len() as u64);
        assert_eq!(packed.content_encoding, Some("gzip"));
    }

    #[test]
    fn a_family_without_metrics_is_skipped() {
        let (text, flaws) = text(vec![counter("a_total", &[])]);
        assert_eq!((text.as_str(), flaws.len()), ("", 0));
    }

    #[test]
    fn a_flawed_family_is_left_out_and_the_rest_is_written() {
        let mut late = counter("late_total", &[&[]]);
        late.mut_metric()[0].set_timestamp_ms(1);
        let mut histogram = counter("h", &[&[("le", "1")]]);
        histogram.set_field_type(MetricType::HISTOGRAM);
        let mut summary = counter("s", &[&[]]);
        summary.set_field_type(MetricType::SUMMARY);
        let (text, flaws) = text(vec![
            counter("with space", &[&[]]),
            counter("", &[&[]]),
            counter("9total", &[&[]]),
            counter("reserved_total", &[&[("__name__", "x")]]),
            counter("dash_total", &[&[("a-b", "x")]]),
            counter("job_total", &[&[("job", "x")]]),
            counter("twice_label_total", &[&[("a", "x"), ("a", "y")]]),
            counter("twice_total", &[&[("a", "x"), ("b", "y")], &[("b", "y"), ("a", "x")]]),
            late,
            histogram,
            summary,
            counter("good_total", &[&[("le", "fine on a counter")]]),
            counter("good_total", &[&[]]),
        ]);
        assert_eq!(text.matches("# TYPE").count(), 1, "{text}");
        assert_eq!(flaws.len(), 12, "{flaws:?}");
    }
}
