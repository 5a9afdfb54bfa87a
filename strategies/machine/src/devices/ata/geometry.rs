//! Cylinders, heads and sectors, and the addresses made of them.

/// How a disk is divided. Cylinders follow from its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Geometry {
    pub(super) heads: u8,
    pub(super) sectors: u8,
}

impl Geometry {
    /// What disks larger than 8 GB say they are.
    pub(super) const DEFAULT: Geometry = Geometry { heads: 16, sectors: 63 };

    pub(super) fn sectors_per_cylinder(self) -> u32 {
        u32::from(self.heads) * u32::from(self.sectors)
    }

    /// Whole cylinders of a disk; the default geometry stops at 16383.
    pub(super) fn cylinders(self, sectors: u64) -> u16 {
        let limit = if self == Geometry::DEFAULT { 16_383 } else { 65_535 };
        (sectors / u64::from(self.sectors_per_cylinder().max(1))).min(limit) as u16
    }

    /// The sector number of an address, if it is one. Sectors count from 1.
    pub(super) fn sector(self, cylinder: u16, head: u8, sector: u8) -> Option<u64> {
        if head >= self.heads || sector == 0 || sector > self.sectors {
            return None;
        }
        let track = u64::from(cylinder) * u64::from(self.heads) + u64::from(head);
        Some(track * u64::from(self.sectors) + u64::from(sector) - 1)
    }

    /// The address of a sector: cylinder, head, sector.
    pub(super) fn address(self, sector: u64) -> (u16, u8, u8) {
        let track = sector / u64::from(self.sectors.max(1));
        let heads = u64::from(self.heads.max(1));
        let in_track = (sector % u64::from(self.sectors.max(1))) as u8 + 1;
        ((track / heads) as u16, (track % heads) as u8, in_track)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sectors_are_inverses() {
        let geometry = Geometry { heads: 5, sectors: 17 };
        for sector in 0..5_000 {
            let (cylinder, head, in_track) = geometry.address(sector);
            assert_eq!(geometry.sector(cylinder, head, in_track), Some(sector));
        }
    }

    #[test]
    fn sectors_count_from_one_and_heads_from_zero() {
        let geometry = Geometry::DEFAULT;
        assert_eq!(geometry.sector(0, 0, 1), Some(0));
        assert_eq!(geometry.sector(0, 0, 0), None);
        assert_eq!(geometry.sector(0, 0, 64), None);
        assert_eq!(geometry.sector(0, 15, 63), Some(1007));
        assert_eq!(Geometry { heads: 2, sectors: 9 }.sector(0, 2, 1), None);
    }
}
