//! The types the checker tells apart: the ones an expression over claims can have.

use std::fmt;

/// The kind of a value, as far as it is known before anything is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Known only at run time: a claim, or what was made of one.
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    List,
    Map,
    /// The name of a type, as `type(x)` gives it.
    Type,
    /// The variable `claims`.
    Claims,
    /// The variable `room`.
    Room,
    /// The variable `event`.
    Event,
    /// The variable `request`.
    Request,
    /// The variable `user`.
    User,
}

impl Kind {
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// A map whose keys are strings, whether or not we know them.
    pub(super) fn is_map(self) -> bool {
        matches!(
            self,
            Self::Map | Self::Claims | Self::Room | Self::Event | Self::Request | Self::User
        )
    }

    /// Reports whether a macro can walk over it.
    pub(super) fn is_iterable(self) -> bool {
        self == Self::Dyn || self == Self::List || self.is_map()
    }

    /// Reports whether the value may turn out to be a `wanted`.
    pub(super) fn may_be(self, wanted: Self) -> bool {
        self == wanted || self == Self::Dyn || wanted == Self::Dyn || (self.is_map() && wanted == Self::Map)
    }

    /// Reports whether `==` between the two can ever be true: numbers of different types do compare.
    pub(super) fn may_equal(self, other: Self) -> bool {
        self.may_be(other)
            || other.may_be(self)
            || (self.is_number() && other.is_number())
            || (self.is_map() && other.is_map())
    }

    /// Returns the kind of `a ? x : y`, or of a list of both.
    pub(super) fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::Dyn }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dyn => "a value known only at run time",
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Uint => "a uint",
            Self::Double => "a double",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Null => "null",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Type => "a type",
            Self::Claims => "the map `claims`",
            Self::Room => "the map `room`",
            Self::Event => "the map `event`",
            Self::Request => "the map `request`",
            Self::User => "the map `user`",
        })
    }
}
