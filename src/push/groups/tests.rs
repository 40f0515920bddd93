#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// A group as Pushgateway 1.5.1 writes it: keys sorted, so that families stand before `labels`.
fn group(job: &str, instance: &str, families: &str, push_time: &str) -> String {
    let labels = serde_json::json!({"instance": instance, "job": job});
    let comma = if families.is_empty() { "" } else { "," };
    format!(
        r#"{{{families}{comma}"labels":{labels},"last_push_successful":true,
        "push_failure_time_seconds":{{"time_stamp":"2026-11-22T15:08:03Z","type":"GAUGE","help":"h",
            "metrics":[{{"labels":{labels},"value":"0"}}]}},
        "push_time_seconds":{{"time_stamp":"2026-11-22T15:08:03Z","type":"GAUGE","help":"h",
            "metrics":[{{"labels":{labels},"value":"{push_time}"}}]}}}}"#
    )
}

fn answer(groups: &[String]) -> String {
    format!(r#"{{"status":"success","data":[{}]}}"#, groups.join(","))
}

fn counter(job: &str, instance: &str, value: &str) -> String {
    format!(
        r#""a_total":{{"time_stamp":"x","type":"COUNTER","help":"h","metrics":[
        {{"labels":{{"instance":"{instance}","job":"{job}","x":"y\"q\n\\"}},"value":"{value}"}}]}}"#
    )
    .replace("\n\\", "\\n\\\\")
    .replace("y\"q", "y\\\"q")
}

fn parse(json: &str) -> Option<Vec<RestoredFamily>> {
    parse_groups(json.as_bytes(), "ci", "a").unwrap()
}

#[test]
fn the_group_with_exactly_our_labels_is_found_among_others() {
    let json = answer(&[
        group("ci", "b", &counter("ci", "b", "7"), "1.79e+09"),
        group("ci", "a", &counter("ci", "a", "3"), "1.79e+09"),
        group("ci", "", &counter("ci", "", "9"), "1.79e+09"),
    ]);
    let families = parse(&json).unwrap();
    let labels = BTreeMap::from([("x".to_owned(), "y\"q\n\\".to_owned())]);
    let metrics = vec![RestoredMetric { labels, value: RestoredValue::Counter(3.0) }];
    assert_eq!(families, [RestoredFamily { name: "a_total".to_owned(), kind: Kind::Counter, metrics }]);
}

#[test]
fn a_group_with_one_label_more_is_not_ours() {
    let other = group("ci", "a", &counter("ci", "a", "3"), "1.79e+09").replace(
        r#""labels":{"instance":"a","job":"ci"},"last"#,
        r#""labels":{"env":"x","instance":"a","job":"ci"},"last"#,
    );
    assert_eq!(parse(&answer(&[other])), None);
}

#[test]
fn a_group_that_was_never_pushed_to_successfully_is_none() {
    assert_eq!(parse(&answer(&[group("ci", "a", "", "0")])), None);
    assert_eq!(parse(&answer(&[])), None);
    assert_eq!(parse(&answer(&[group("ci", "a", "", "1.79e+09")])), Some(Vec::new()));
}

#[test]
fn histograms_come_with_their_buckets_in_the_order_of_bounds() {
    let labels = r#""labels":{"instance":"a","job":"ci"}"#;
    let json = format!(
        r#""h":{{"type":"HISTOGRAM","metrics":[{{"buckets":{{"+Inf":"5","1e+06":"4","0.1":"1","30":"3","5":"2"}},
        "count":"5",{labels},"sum":"+Inf"}}]}}"#
    );
    let families = parse(&answer(&[group("ci", "a", &json, "1")])).unwrap();
    let buckets = vec![(0.1, 1), (5.0, 2), (30.0, 3), (1e6, 4)];
    assert_eq!(families[0].metrics[0].value, RestoredValue::Histogram { sum: f64::INFINITY, count: 5, buckets });
}

#[test]
fn counts_written_as_floats_are_counts_and_halves_are_not() {
    assert_eq!(integer("9007199254740993"), Some(9_007_199_254_740_993));
    assert_eq!(integer("9.007199254740992e+15"), Some(1 << 53));
    assert_eq!(integer("1e30"), Some(u64::MAX));
    for wrong in ["-1", "1.5", "NaN", "", "x", "-0.5"] {
        assert_eq!(integer(wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_malformed_in_another_group_is_not_our_trouble_and_in_ours_it_is() {
    let broken = [
        r#""a_total":3"#,
        r#""a_total":{"type":"COUNTER"}"#,
        r#""a_total":{"metrics":[]}"#,
        r#""a_total":{"type":"COUNTER","metrics":[{"labels":{"instance":"@","job":"ci"},"value":3}]}"#,
        r#""a_total":{"type":"COUNTER","metrics":[{"labels":{"instance":"@","job":"ci"},"value":"three"}]}"#,
        r#""h":{"type":"HISTOGRAM","metrics":[{"labels":{"instance":"@","job":"ci"},"count":"-1","sum":"0"}]}"#,
        r#""h":{"type":"HISTOGRAM","metrics":[{"labels":{"instance":"@","job":"ci"},"count":"1","sum":"0","buckets":{"NaN":"1"}}]}"#,
    ];
    for broken in broken {
        let other = group("ci", "b", &broken.replace('@', "b"), "1");
        let own = group("ci", "a", &counter("ci", "a", "3"), "1");
        assert_eq!(parse(&answer(&[other, own])).unwrap().len(), 1, "{broken}");
        let own = answer(&[group("ci", "a", &broken.replace('@', "a"), "1")]);
        let error = parse_groups(own.as_bytes(), "ci", "a").unwrap_err();
        assert!(error.to_string().contains("family"), "{broken}: {error}");
    }
}

#[test]
fn another_groups_family_may_even_be_called_labels() {
    let shadow = r#"{"labels":{"type":"GAUGE","metrics":[]},"push_time_seconds":{"type":"GAUGE","metrics":[]}}"#;
    let own = group("ci", "a", &counter("ci", "a", "3"), "1");
    assert!(parse(&answer(&[shadow.to_owned(), own])).is_some());
}

#[test]
fn what_is_no_answer_of_that_api_is_an_error() {
    let cut = answer(&[group("ci", "a", &counter("ci", "a", "3"), "1")]);
    let deep = "[".repeat(100_000);
    for body in ["", "{}", "[]", "null", "<html>", r#"{"data":3}"#, r#"{"data":[]} x"#, &cut[..cut.len() - 9], &deep] {
        assert!(parse_groups(body.as_bytes(), "ci", "a").is_err(), "{body:.40}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_groups(&body, "ci", "a");
    }

    #[test]
    fn no_mutilated_answer_panics(at in 0_usize..2000, byte in any::<u8>(), cut in 0_usize..2000) {
        let mut body = answer(&[group("ci", "a", &counter("ci", "a", "3"), "1")]).into_bytes();
        let (at, cut) = (at % body.len(), cut % body.len());
        body[at] = byte;
        let _ = parse_groups(&body, "ci", "a");
        let _ = parse_groups(&body[..cut], "ci", "a");
    }

    #[test]
    fn every_float_comes_back_bit_by_bit(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let json = answer(&[group("ci", "a", &counter("ci", "a", &format!("{value:e}")), "1")]);
        let families = parse(&json).unwrap();
        let RestoredValue::Counter(back) = families[0].metrics[0].value else { panic!("{families:?}") };
        prop_assert!(back.to_bits() == bits || (back.is_nan() && value.is_nan()));
    }
}
