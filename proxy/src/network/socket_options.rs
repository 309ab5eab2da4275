//! Options of sockets that the configuration gives as numbers and bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use outrigger_config::ir::SocketOption;

/// Sets an option.
///
/// # Errors
/// The system's.
pub fn set(socket: &impl AsFd, option: &SocketOption) -> io::Result<()> {
    let length = libc::socklen_t::try_from(option.value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads no more
    // than `length` bytes of the value.
    let outcome = unsafe {
        libc::setsockopt(
            socket,
            option.level,
            option.name,
            option.value.as_ptr().cast(),
            length,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(name: i32, value: &[u8]) -> SocketOption {
        SocketOption {
            level: libc::SOL_SOCKET,
            name,
            value: value.into(),
            family: None,
        }
    }

    #[test]
    fn an_option_is_set_by_its_number() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let on = option(libc::SO_BROADCAST, &1_i32.to_ne_bytes());
        set(&socket, &on).expect("set");
        assert!(socket.broadcast().expect("an option"));
    }

    #[test]
    fn what_the_system_refuses_is_an_error() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        assert!(set(&socket, &option(libc::SO_BROADCAST, &[])).is_err());
    }
}
