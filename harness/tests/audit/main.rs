//! `ringside audit`: small images put together byte by byte, the program from outside, hostile
//! images, and a real kernel where there is one.

mod hostile;
mod images;
mod program;
mod room;
mod traversal;
