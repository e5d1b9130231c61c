//! A shard index.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path};
use tvb::checkpoint::ShardIndex;

fuzz_target!(|json: &[u8]| {
    if let Ok(index) = ShardIndex::parse(json) {
        assert!(!index.shards.is_empty());
        for shard in &index.shards {
            assert!(Path::new(shard).components().all(|part| matches!(part, Component::Normal(_))));
        }
    }
});
