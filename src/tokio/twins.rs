//! The methods that differ from their blocking twins in one thing: they are done
//! on the pool.

/// A public method that does what its blocking twin does, on the pool.
macro_rules! twins {
    ($of:ident, $through:ident, $self:ty; $(
        $name:ident($($argument:ident: $type:ty = $owned:expr),*) -> $output:ty;
    )*) => { $(
        #[doc = concat!("[`", stringify!($of), "::", stringify!($name), "`](crate::", stringify!($of), "::",
            stringify!($name), ") as a future.")]
        ///
        /// # Errors
        /// As there.
        #[allow(clippy::redundant_locals, reason = "some arguments need no conversion")]
        pub async fn $name(self: $self, $($argument: $type),*) -> crate::error::Result<$output> {
            $(let $argument = $owned;)*
            self.$through(move |twin| twin.$name($($argument),*)).await
        }
    )* };
}
pub(super) use twins;
