//! Statistics over samples: medians with intervals that assume no distribution, ratios, geometric
//! means, and the noise that a run shows against itself. Pure functions; no files, no guests.

mod bootstrap;
mod comparison;
mod estimate;
mod noise;
mod summary;

pub use bootstrap::{geometric_mean_ratio, ratio_of_medians};
pub use comparison::{Comparison, GroupComparison, StrategyComparison};
pub use estimate::{Estimate, geometric_mean, median, median_interval};
pub use noise::{Noise, noise};
pub use summary::{ns_per_iteration, summarise};
