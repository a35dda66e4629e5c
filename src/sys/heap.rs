//! Gives free memory of the heap back to the system.
//!
//! A model is loaded once and served for months, and what loading took lies free in the heap for all that
//! time. The C library gives back by itself only what is free at the heap's end.

/// Gives back what is free now. Takes milliseconds: not for the path of a frame.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes any number, touches only memory that nobody holds, and is safe with other threads.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    /// Whether the page around an address is in memory.
    fn is_resident(address: usize) -> bool {
        let page = rustix::param::page_size();
        let mut resident = 0_u8;
        // SAFETY: one page is asked about, for which one byte is answered; nothing is read there.
        let answer =
            unsafe { libc::mincore((address / page * page) as *mut libc::c_void, page, &raw mut resident) };
        answer == 0 && resident & 1 == 1
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_lies_free_between_what_is_held_is_given_back() {
        // Below the size that the C library maps apart, each with something behind it that stays.
        let mut stays = Vec::new();
        let blocks: Vec<Vec<u8>> = (0..200)
            .map(|_| {
                let block = vec![1; 100 << 10];
                stays.push(vec![1_u8; 100]);
                block
            })
            .collect();
        let places: Vec<usize> = blocks.iter().map(|block| block.as_ptr() as usize + (50 << 10)).collect();
        let resident = || places.iter().filter(|&&place| is_resident(place)).count();
        drop(blocks);
        // Other tests of this process may take or trim some meanwhile.
        let before = resident();
        super::trim();
        let after = resident();
        assert!(after < 100, "{before} of {} were in memory, {after} still are", places.len());
        assert!(stays.iter().all(|held| held.iter().all(|&byte| byte == 1)));
    }
}
