//! Pictures that are stored turned or mirrored, as EXIF and TIFF number it (tag 274).

use crate::raster::{Plane, Raster, Samples, Window};

/// How a picture is to be turned before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Orientation {
    /// Rows and columns change places; done first.
    transposed: bool,
    /// Then left and right.
    mirrored: bool,
    /// Then top and bottom.
    flipped: bool,
}

impl Orientation {
    /// As tag 274 numbers it; everything but 2 to 8 is upright.
    pub(crate) fn of_tag(value: u32) -> Self {
        let (transposed, mirrored, flipped) = match value {
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        Self { transposed, mirrored, flipped }
    }

    /// From the EXIF data of a JPEG or PNG, which is a small TIFF. Data that cannot be read says nothing.
    pub(crate) fn of_exif(data: &[u8]) -> Self {
        Self::of_tag(tag_274(data).unwrap_or(1))
    }

    /// The size of the picture as it is looked at.
    pub(crate) fn size(self, width: u32, height: u32) -> (u32, u32) {
        if self.transposed { (height, width) } else { (width, height) }
    }

    /// Turns a picture without data window upright.
    pub(crate) fn upright(self, picture: Raster) -> Raster {
        if self == Self::default() {
            return picture;
        }
        let (from_width, from_height) = (picture.data.width as usize, picture.data.height as usize);
        let (width, height) = self.size(picture.data.width, picture.data.height);
        let places: Vec<usize> = (0..height as usize)
            .flat_map(|y| (0..width as usize).map(move |x| (x, y)))
            .map(|(x, y)| {
                let x = if self.mirrored { width as usize - 1 - x } else { x };
                let y = if self.flipped { height as usize - 1 - y } else { y };
                if self.transposed { x * from_width + y } else { y * from_width + x }
            })
            .collect();
        debug_assert_eq!(places.len(), from_width * from_height);
        let planes = picture.planes.into_iter().map(|plane| Plane {
            samples: match plane.samples {
                Samples::U8(samples) => Samples::U8(moved(&samples, &places)),
                Samples::U16(samples) => Samples::U16(moved(&samples, &places)),
                Samples::F16(samples) => Samples::F16(moved(&samples, &places)),
                Samples::F32(samples) => Samples::F32(moved(&samples, &places)),
            },
            name: plane.name,
        });
        let window = Window::of_size(width, height);
        Raster { display: window, data: window, planes: planes.collect(), metadata: picture.metadata }
    }
}

/// Tag 274 of the first directory.
fn tag_274(data: &[u8]) -> Option<u32> {
    // JPEG puts a name before it.
    let data = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
    let big = match data.get(..4)? {
        b"MM\0\x2a" => true,
        b"II\x2a\0" => false,
        _ => return None,
    };
    let two = |at: usize| {
        let pair = data.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    let four = |at: usize| {
        let four = data.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    };
    let directory = four(4)? as usize;
    let entries = usize::from(two(directory)?);
    let entry = (0..entries).map(|entry| directory + 2 + 12 * entry).find(|at| two(*at) == Some(274))?;
    two(entry + 8).map(u32::from)
}

fn moved<T: Copy>(samples: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|place| samples[*place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;

    #[test]
    fn every_orientation_is_turned_upright() {
        // 2x3:  1 2 / 3 4 / 5 6
        let window = Window::of_size(2, 3);
        let plane = Plane { name: "Y".to_owned(), samples: Samples::U8(vec![1, 2, 3, 4, 5, 6]) };
        let stored =
            Raster { display: window, data: window, planes: vec![plane], metadata: Metadata::default() };
        for (tag, width, expected) in [
            (1, 2, [1, 2, 3, 4, 5, 6]),
            (2, 2, [2, 1, 4, 3, 6, 5]),
            (3, 2, [6, 5, 4, 3, 2, 1]),
            (4, 2, [5, 6, 3, 4, 1, 2]),
            (5, 3, [1, 3, 5, 2, 4, 6]),
            (6, 3, [5, 3, 1, 6, 4, 2]),
            (7, 3, [6, 4, 2, 5, 3, 1]),
            (8, 3, [2, 4, 6, 1, 3, 5]),
        ] {
            let upright = Orientation::of_tag(tag).upright(stored.clone());
            assert_eq!(upright.data.width, width, "{tag}");
            assert_eq!(upright.planes[0].samples, Samples::U8(expected.to_vec()), "{tag}");
        }
    }

    #[test]
    fn exif_is_read_in_both_byte_orders_and_nonsense_says_nothing() {
        let little = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let big = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        for data in [&little[..], big] {
            assert_eq!(Orientation::of_exif(data), Orientation::of_tag(6));
        }
        for data in [&little[..9], b"", b"II\x2a\0\xff\xff\xff\xff"] {
            assert_eq!(Orientation::of_exif(data), Orientation::default());
        }
    }
}
