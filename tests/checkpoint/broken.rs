//! Files that are no checkpoints: truncated, changed, hostile. Each is an error that names both sides.

use std::collections::HashMap;

use fused_dropout::Error;
use fused_dropout::nn::Mlp;
use fused_dropout::nn::{MlpSpec, checkpoint};
use proptest::prelude::*;

use crate::{with_moments, with_velocity};

/// A file in parts, to be changed and put together.
#[derive(Clone)]
struct Parts {
    metadata: HashMap<String, String>,
    /// Name, dtype, shape and bytes.
    tensors: Vec<(String, String, Vec<u64>, u64)>,
}

impl Parts {
    fn of(mlp: &Mlp) -> Self {
        let bytes = mlp.to_bytes().unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
        let mut header = header.as_object().unwrap().clone();
        let metadata = serde_json::from_value(header.remove("__metadata__").unwrap()).unwrap();
        let mut tensors: Vec<_> = header.into_iter().collect();
        tensors.sort_by_key(|(_, info)| info["data_offsets"][0].as_u64());
        let tensors = tensors.into_iter().map(|(name, info)| {
            let at = |i: usize| info["data_offsets"][i].as_u64().unwrap();
            let shape = serde_json::from_value(info["shape"].clone()).unwrap();
            (name, info["dtype"].as_str().unwrap().to_owned(), shape, at(1) - at(0))
        });
        Self { tensors: tensors.collect(), metadata }
    }

    fn bytes(&self) -> Vec<u8> {
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        header.insert("__metadata__".into(), serde_json::to_value(&self.metadata).unwrap());
        for (name, dtype, shape, len) in &self.tensors {
            let info = serde_json::json!({
                "dtype": dtype, "shape": shape, "data_offsets": [end, end + len],
            });
            header.insert(name.clone(), info);
            end += len;
        }
        file(&serde_json::to_string(&header).unwrap(), end as usize)
    }

    #[track_caller]
    fn says(change: impl FnOnce(&mut Self)) -> String {
        let mut parts = Self::of(&with_velocity());
        change(&mut parts);
        says(&parts.bytes())
    }
}

fn file(header: &str, numbers: usize) -> Vec<u8> {
    let len = (header.len() as u64).to_le_bytes();
    [&len[..], header.as_bytes(), &vec![0; numbers]].concat()
}

#[track_caller]
fn says(bytes: &[u8]) -> String {
    let error = Mlp::from_bytes(bytes).unwrap_err();
    let text = error.to_string();
    assert!(text.len() < 700, "{text}");
    text
}

#[test]
fn what_does_not_fit_is_refused_with_both_sides() {
    let unchanged = Parts::of(&with_velocity()).bytes();
    assert_eq!(Mlp::from_bytes(&unchanged).unwrap().spec(), with_velocity().spec());

    let set = |key: &str, value: &str| {
        let value = value.to_owned();
        Parts::says(|parts| {
            assert!(parts.metadata.insert(key.into(), value).is_some());
        })
    };
    for (key, value, text) in [
        ("format", "pt", r#"format is "pt", but must be "fused-dropout""#),
        ("format_version", "2", r#"format_version is "2", but must be "1", the one that this"#),
        ("format_version", "", r#"format_version is "", but must be "1""#),
        (
            "steps",
            "4294967296",
            r#"steps is "4294967296", but must be a number from 0 to 2^32 - 1"#,
        ),
        ("steps", "-1", r#"steps is "-1", but"#),
        ("moment_steps", "1.0", r#"moment_steps is "1.0", but"#),
        ("spec", "{", r#"spec is "{", but must be of this version of fused-dropout: EOF"#),
        ("spec", "{\"sizes\":[3,4,2]}", "missing field `activation`"),
        ("state", r#"["velocity"]"#, "state is that of 1 layers, but must be that of the 2 of"),
        ("state", r#"["velocity","kept"]"#, "unknown variant `kept`"),
        ("state", r#"["none","velocity"]"#, r#"tensor "layers.0"#),
        (
            "state",
            r#"["velocity","moments"]"#,
            r#"tensor "layers.1.weight.first_moment" is missing, but must be F32 of [4, 2]"#,
        ),
    ] {
        let said = set(key, value);
        assert!(said.starts_with("the checkpoint's ") && said.contains(text), "{said}");
    }
    for key in ["format", "format_version", "steps", "moment_steps", "spec", "state"] {
        let said = Parts::says(|parts| drop(parts.metadata.remove(key)));
        assert_eq!(said, format!("the checkpoint's {key} is missing, but must be in the metadata"));
    }
    let long = set("format", &"ä\n".repeat(1 << 16));
    assert!(long.contains("..., but must be \"fused-dropout\""), "{long}");
}

#[test]
fn tensors_are_those_of_the_spec() {
    let missing = Parts::says(|parts| drop(parts.tensors.remove(1)));
    assert!(
        missing.contains(r#"tensor "layers.0.bias" is missing, but must be F32 of [4]"#),
        "{missing}"
    );
    let some_layers_only = Parts::says(|parts| parts.tensors.truncate(6));
    assert!(
        some_layers_only.contains("layers.1.weight.velocity\" is missing"),
        "{some_layers_only}"
    );
    let surplus = Parts::says(|parts| {
        parts.tensors.push(("layers.2.weight".into(), "BF16".into(), vec![2, 1], 4));
    });
    assert!(
        surplus.contains(r#"tensor "layers.2.weight" is BF16 of [2, 1], but must be absent"#),
        "{surplus}"
    );
    let undeclared = Parts::says(|parts| {
        parts.metadata.insert("state".into(), r#"["velocity","none"]"#.into());
    });
    assert!(
        undeclared.contains(r#"velocity" is F32 of [2], but must be absent"#)
            || undeclared.contains(r#"velocity" is F32 of [4, 2], but must be absent"#),
        "{undeclared}"
    );
    let dtype = Parts::says(|parts| parts.tensors[0].1 = "I32".into());
    assert!(
        dtype.contains(r#""layers.0.weight" is I32 of [3, 4], but must be F32 of [3, 4]"#),
        "{dtype}"
    );
    for (shape, words) in [
        (vec![4, 3], "F32 of [4, 3]"),
        (vec![12], "F32 of [12]"),
        (vec![1, 1, 1, 1, 12], "[1, 1, 1, 1]"),
    ] {
        let said = Parts::says(|parts| parts.tensors[0].2 = shape);
        assert!(said.contains(words) && said.contains("must be F32 of [3, 4]"), "{said}");
    }
    let sizes = Parts::says(|parts| {
        let spec = parts.metadata.get_mut("spec").unwrap();
        *spec = spec.replace("[3,4,2]", "[3,5,2]");
    });
    assert!(
        sizes.contains("F32 of [3, 4], but must be F32 of [3, 5], as its spec says"),
        "{sizes}"
    );

    // Tensors in another order, and keys that nobody knows, are as good.
    let mut parts = Parts::of(&with_moments());
    parts.tensors.reverse();
    parts.metadata.insert("author".into(), "somebody".into());
    assert_eq!(Mlp::from_bytes(&parts.bytes()).unwrap().moment_steps(), 1);
}

/// A spec that no network can have is refused as by `Mlp::new`.
#[test]
fn specs_are_checked() {
    let spec = |from: &str, to: &str| {
        let mut parts = Parts::of(&with_velocity());
        let spec = parts.metadata.get_mut("spec").unwrap();
        assert!(spec.contains(from), "{spec}");
        *spec = spec.replace(from, to);
        Mlp::from_bytes(&parts.bytes()).unwrap_err()
    };
    assert!(matches!(spec("[3,4,2]", "[]"), Error::Parameter { name: "number of sizes", .. }));
    assert!(matches!(spec("[3,4,2]", "[3,0,2]"), Error::Parameter { name: "size of a layer", .. }));
    assert_eq!(spec("\"hidden_rate\":0.5", "\"hidden_rate\":7"), Error::Rate { rate: 7.0 });
    assert!(matches!(spec("\"residual\":[]", "\"residual\":[true]"), Error::Mismatch { .. }));
}

/// Sizes are compared before memory is asked for: what the spec claims here nobody has.
#[test]
fn hostile_sizes_are_refused_before_they_are_believed() {
    const HUGE: &str = "[16777216,16777216,16777216]";
    let spec = |parts: &mut Parts| {
        let spec = parts.metadata.get_mut("spec").unwrap();
        *spec = spec.replace("[3,4,2]", HUGE);
    };
    let said = Parts::says(spec);
    assert!(said.contains("F32 of [3, 4], but must be F32 of [16777216, 16777216]"), "{said}");
    // Tensors that claim as much, in a file that has not.
    let mut parts = Parts::of(&with_velocity());
    spec(&mut parts);
    let mut header = String::from("{\"__metadata__\":");
    header += &serde_json::to_string(&parts.metadata).unwrap();
    let bytes = 1u64 << 50;
    header += &format!(
        r#","layers.0.weight":{{"dtype":"F32","shape":[16777216,16777216],"data_offsets":[0,{bytes}]}}}}"#
    );
    let said = says(&file(&header, 1000));
    let len = 8 + header.len() + 1000;
    let expected = 8 + header.len() as u64 + bytes;
    assert_eq!(
        said,
        format!(
            "the checkpoint's length is {len} bytes, but must be {expected} bytes, as its header says"
        )
    );
    // A million layers of which there are none.
    let said = Parts::says(|parts| {
        let spec = parts.metadata.get_mut("spec").unwrap();
        *spec = spec.replace("[3,4,2]", &format!("[3{}]", ",1".repeat(1_000_000)));
        parts.metadata.insert("state".into(), format!("[\"none\"{}]", ",\"none\"".repeat(999_999)));
    });
    assert!(
        said.contains("layers.0.weight\" is F32 of [3, 4], but must be F32 of [3, 1]"),
        "{said}"
    );

    assert_eq!(
        says(&[]),
        "the checkpoint's length is 0 bytes, but must be 8 bytes or more: it starts with a number"
    );
    for len in [u64::MAX, 1 << 63, 1 << 25, 9] {
        let said = says(&[&len.to_le_bytes()[..], b"{}  {}  "].concat());
        let expected =
            format!("header length is {len} bytes, but must be at most 8 bytes, of a file of 16");
        assert!(said.contains(&expected), "{said}");
    }
    for header in ["", "{", "[]", "null", "{\"a\":1}", "{\"a\":{\"dtype\":\"F32\"}}", "\u{0}"] {
        let said = says(&file(header, 0));
        assert!(said.contains("header is broken ("), "{said}");
    }
    let deep = says(&file(&"[".repeat(1 << 20), 0));
    assert!(deep.contains("header is broken ("), "{deep}");
    let overlap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(says(&file(overlap, 4)).contains("header is broken ("));
    assert!(says(&file("{}", 0)).contains("format is missing"));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = with_moments().to_bytes().unwrap();
    for len in 0..bytes.len() {
        says(&bytes[..len]);
    }
    says(&[&bytes[..], &[0]].concat());
}

/// A byte that is changed makes another network of the same shape, or an error.
fn check_changed(changed: &[u8], spec: &MlpSpec) {
    let Ok(mlp) = Mlp::from_bytes(changed) else { return };
    assert_eq!(mlp.spec().sizes, spec.sizes);
    for (layer, size) in mlp.layers().iter().zip(spec.sizes.windows(2)) {
        assert_eq!(layer.weights().len(), size[0] * size[1]);
        assert_eq!(layer.bias().len(), size[1]);
    }
    let again = mlp.to_bytes().unwrap();
    assert_eq!(Mlp::from_bytes(&again).unwrap().to_bytes().unwrap(), again);
}

#[test]
fn every_byte_may_be_changed() {
    for mlp in [with_velocity(), with_moments()] {
        let bytes = mlp.to_bytes().unwrap();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            for flip in [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff] {
                changed[position] = bytes[position] ^ flip;
                check_changed(&changed, mlp.spec());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_may_be_anything(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mlp = with_velocity();
        let mut bytes = mlp.to_bytes().unwrap();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            let at = cut.index(bytes.len());
            bytes.remove(at);
        }
        check_changed(&bytes, mlp.spec());
    }
}

/// JSON cannot hold every number of a spec; such a spec is refused when it is saved, not when it is lost.
#[test]
fn what_cannot_be_loaded_is_not_saved() {
    let mut spec = MlpSpec::new(&[2, 2, 2]).with_rates(&[0.1, 0.2]);
    spec.input_rate = f64::NAN;
    let mlp = Mlp::new(&spec).unwrap();
    let said = mlp.to_bytes().unwrap_err().to_string();
    assert!(said.starts_with("the checkpoint's spec is \"{"), "{said}");
    assert!(said.ends_with("but must be of finite numbers"), "{said}");
    assert_eq!((checkpoint::FORMAT, checkpoint::FORMAT_VERSION), ("fused-dropout", 1));
}
