//! Loading boot images. To be written.
