//! The text behind a code, and how enumerations of codes are declared.

/// The text behind a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The code.
    pub code: &'static str,
    /// What has happened.
    pub means: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

impl Why {
    pub(super) const fn new(code: &'static str, means: &'static str, advice: &'static str) -> Self {
        Self { code, means, advice }
    }
}

/// A code with its text. Implemented by the enumerations of this module alone.
pub(crate) trait Coded: Copy {
    /// The code as it stands in documents, logs and rows.
    fn code(self) -> &'static str;
}

/// Declares an enumeration of codes, each variant with its text.
macro_rules! codes {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$doc:meta])* $variant:ident => $why:expr,)*
    }) => {
        $(#[$meta])*
        $vis enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            /// The text behind it.
            $vis const fn why(self) -> Why {
                match self {
                    $(Self::$variant => $why,)*
                }
            }

            /// The code as it stands on the wire.
            $vis const fn as_str(self) -> &'static str {
                self.why().code
            }
        }

        impl Coded for $name {
            fn code(self) -> &'static str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(super) use codes;
