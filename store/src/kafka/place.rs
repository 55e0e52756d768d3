//! Which partition a site belongs to: as producers have it that hash keys by murmur2, Java's and librdkafka's `murmur2_random`.

/// The most partitions that the topics may have.
pub const PARTITIONS_MAX: u16 = 1024;

/// The seed of Kafka's hash, and the numbers that MurmurHash2 multiplies and shifts by.
const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The partition, of so many, of the records with this key: MurmurHash2 of it without its highest bit, modulo `partitions`.
pub fn partition_of(key: &[u8], partitions: u16) -> u16 {
    let partition = (murmur2(key) & 0x7fff_ffff) % u32::from(partitions.max(1));
    u16::try_from(partition).expect("is below a number of 16 bits")
}

fn murmur2(key: &[u8]) -> u32 {
    let (words, rest) = key.as_chunks::<4>();
    let length = u32::try_from(key.len()).expect("a key is short");
    let mixed = words.iter().fold(SEED ^ length, |hash, word| {
        let word = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        let word = (word ^ (word >> SHIFT)).wrapping_mul(MULTIPLIER);
        hash.wrapping_mul(MULTIPLIER) ^ word
    });
    let mixed = if rest.is_empty() {
        mixed
    } else {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        (mixed ^ tail).wrapping_mul(MULTIPLIER)
    };
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(MULTIPLIER);
    mixed ^ (mixed >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Apache Kafka's own tests expect of its hash.
    #[test]
    fn the_hash_is_the_one_of_kafka() {
        let known: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn each_site_has_one_of_the_partitions() {
        for partitions in [1, 3, 12, PARTITIONS_MAX] {
            let of = |site: u32| partition_of(format!("site-{site}").as_bytes(), partitions);
            let mut counts = vec![0_u32; partitions.into()];
            (0..20_000).for_each(|site| counts[usize::from(of(site))] += 1);
            let fair = 20_000 / u32::from(partitions);
            assert!(counts.iter().all(|count| *count > fair / 4 && *count < fair * 4), "{counts:?}");
        }
    }
}
