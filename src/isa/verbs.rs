//! What the ISA files would say again for each verb.

/// Methods of a trait of lanes: `self`, which only proves that the instructions exist, is left out.
/// They are inlined down to the instructions; see [`isa`](super).
macro_rules! verbs {
    () => {};
    (fn $name:ident $(<const $n:ident: i32>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        #[inline(always)]
        fn $name $(<const $n: i32>)? (self, $($arg: $ty),*) $(-> $ret)? $body
        verbs! { $($rest)* }
    };
    (unsafe fn $name:ident ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) $(-> $ret)? $body
        verbs! { $($rest)* }
    };
}

/// [`verbs!`] whose bodies are intrinsics of the features that `self` proves.
#[cfg(target_arch = "x86_64")]
macro_rules! intrinsics {
    () => {};
    (fn $name:ident $(<const $n:ident: i32>)? ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        verbs! {
            fn $name $(<const $n: i32>)? ($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: `self` proves that the CPU has the features.
                unsafe { $body }
            }
        }
        intrinsics! { $($rest)* }
    };
    (unsafe fn $name:ident ($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block $($rest:tt)*) => {
        verbs! {
            unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the caller's promise about memory, of which the intrinsics access no more
                // than the trait says; `self` proves that the CPU has the features.
                unsafe { $body }
            }
        }
        intrinsics! { $($rest)* }
    };
}

/// A token whose holder proves that the CPU has some features, and kernels compiled for them.
#[cfg(target_arch = "x86_64")]
macro_rules! token {
    ($isa:ident: $($feature:tt),+) => {
        impl $isa {
            /// The token, if this CPU (and its operating system) can.
            #[inline]
            pub(crate) fn detect() -> Option<Self> {
                ($(is_x86_feature_detected!($feature))&&+).then_some(Self(()))
            }
        }

        impl $crate::isa::Dispatch for $isa {
            #[inline]
            fn vectorize<K: $crate::isa::Kernel>(self, kernel: K) -> K::Output {
                #[target_feature($(enable = $feature),+)]
                fn inner<K: $crate::isa::Kernel>(isa: $isa, kernel: K) -> K::Output {
                    kernel.run(isa)
                }
                // SAFETY: `self` proves that the CPU has these features.
                unsafe { inner(self, kernel) }
            }
        }
    };
}

/// The dispatch of an instruction set that every CPU the program runs on has.
macro_rules! always_there {
    ($isa:ident) => {
        impl $crate::isa::Dispatch for $isa {
            // One copy of a kernel, not one for each caller.
            #[inline(never)]
            fn vectorize<K: $crate::isa::Kernel>(self, kernel: K) -> K::Output {
                kernel.run(self)
            }
        }
    };
}

/// The GEMM tile of an instruction set: rows, and vectors in a row.
macro_rules! tile_size {
    ($isa:ident: $mr:literal x $nv:literal) => {
        impl $crate::isa::TileSize for $isa {
            const MR: usize = $mr;
            const NV: usize = $nv;

            #[inline(always)]
            fn tile<K: $crate::isa::TileKernel>(self, kernel: K) -> K::Output {
                kernel.run::<Self, $mr, { $mr - 1 }, $nv>(self)
            }
        }
    };
}
