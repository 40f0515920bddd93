//! kitepush from outside: real files, real sockets, real servers.

mod fixtures;
