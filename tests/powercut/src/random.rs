//! Numbers that look random and are the same in every run (SplitMix64).

#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The stream that belongs to these numbers.
    pub fn of(numbers: &[u64]) -> Self {
        numbers.iter().fold(Self(0x9e37_79b9_7f4a_7c15), |random, number| {
            Self(Self(random.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)).next())
        })
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}
