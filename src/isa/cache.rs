//! The sizes of the caches, for block sizes and streamed outputs.

use std::sync::OnceLock;

/// Bytes of the caches: the one that belongs to one core, and the one that cores share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caches {
    pub(crate) level_2: usize,
    pub(crate) level_3: usize,
}

/// The caches of this machine, or, where it does not tell, those of a small one.
pub(crate) fn caches() -> Caches {
    static CACHES: OnceLock<Caches> = OnceLock::new();
    *CACHES.get_or_init(|| {
        let mut caches = Caches { level_2: 512 << 10, level_3: 8 << 20 };
        for (level, bytes) in detect() {
            match level {
                2 => caches.level_2 = bytes.clamp(256 << 10, 4 << 20),
                // Of a larger one, neighbours leave no more to a program of a few threads.
                3 => caches.level_3 = bytes.clamp(4 << 20, 64 << 20),
                _ => {}
            }
        }
        caches
    })
}

/// Level and bytes of each data cache, from CPUID's "deterministic cache parameters": leaf 4, or
/// 0x8000001d on AMD, which have the same layout (Intel SDM volume 2A; AMD APM volume 3).
#[cfg(target_arch = "x86_64")]
fn detect() -> Vec<(u32, usize)> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let largest = |leaf| __cpuid(leaf).eax;
    let amd = largest(0x8000_0000) >= 0x8000_001d && __cpuid_count(0x8000_001d, 0).eax & 31 != 0;
    let leaf = match amd {
        true => 0x8000_001d,
        false if largest(0) >= 4 => 4,
        false => return Vec::new(),
    };
    let mut found = Vec::new();
    for index in 0..8 {
        let info = __cpuid_count(leaf, index);
        // Types: 0 no more caches, 1 data, 2 instructions, 3 both.
        match info.eax & 31 {
            0 => break,
            2 => continue,
            _ => {}
        }
        let field = |shift: u32, bits: u32| ((info.ebx >> shift) & ((1 << bits) - 1)) as usize + 1;
        let bytes = field(22, 10) * field(12, 10) * field(0, 12) * (info.ecx as usize + 1);
        found.push(((info.eax >> 5) & 7, bytes));
    }
    found
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Vec<(u32, usize)> {
    Vec::new()
}
