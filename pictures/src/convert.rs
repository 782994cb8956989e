//! From one format and colour space to another.

use hearth_workflows::{
    View,
    format::{ColourSpace, Encoding, PictureFormat},
};

use crate::{
    colour,
    raster::{Plane, Raster, Samples, Window},
};

/// Converts pictures of one encoding to another. Made once for a clip: it keeps tables.
#[derive(Debug)]
pub struct Converter {
    from: Encoding,
    to: Encoding,
    on_the_way: OnTheWay,
    /// Whether colour is multiplied by alpha in what it makes.
    multiplied: bool,
    matrix: Option<[[f32; 3]; 3]>,
    /// What every possible sample of 8, 16 or half-float bits becomes, where channels do not mix.
    table: Option<Vec<f32>>,
}

/// Steps beside the conversion itself.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OnTheWay {
    pub view: Option<ViewStep>,
    /// What is below 0 and above 1 is cut off, though the format could hold it.
    pub cut: bool,
    pub alpha: Alpha,
}

/// Relation of colour to alpha in the converted picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Alpha {
    /// As the standard of the format has it.
    #[default]
    Usual,
    /// Colour is multiplied by alpha.
    Multiplied,
    /// It is not: for nodes that read the colours alone.
    Straight,
}

/// Direction of a view transform.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ViewStep {
    To(View),
    From(View),
}

impl OnTheWay {
    fn changes_numbers(self) -> bool {
        self.view.is_some() || self.cut
    }
}

/// EXR multiplies colour by alpha (OpenEXR's convention), the others do not.
fn is_premultiplied(format: PictureFormat) -> bool {
    format.is_exr()
}

impl Converter {
    /// `None` when there is nothing to do: the same format, and the same numbers in it.
    pub fn new(from: Encoding, to: Encoding) -> Option<Self> {
        Self::with(from, to, OnTheWay::default())
    }

    /// As [`new`](Self::new), with more to do on the way. Data has no light that could be viewed.
    pub fn with(from: Encoding, to: Encoding, on_the_way: OnTheWay) -> Option<Self> {
        let data = [from.colour, to.colour].contains(&ColourSpace::Data);
        let on_the_way = if data { OnTheWay { view: None, ..on_the_way } } else { on_the_way };
        let usual = is_premultiplied(to.format);
        let multiplied = match on_the_way.alpha {
            Alpha::Usual => usual,
            Alpha::Multiplied => true,
            Alpha::Straight => false,
        };
        if from == to && multiplied == usual && !on_the_way.changes_numbers() {
            return None;
        }
        let (from_colour, to_colour) =
            if data { (ColourSpace::Data, ColourSpace::Data) } else { (from.colour, to.colour) };
        let matrix = colour::matrix(from_colour, to_colour);
        let (from, to) = (Encoding { colour: from_colour, ..from }, Encoding { colour: to_colour, ..to });
        let mut converter = Self { from, to, on_the_way, multiplied, matrix, table: None };
        if converter.matrix.is_none()
            && !matches!(from.format, PictureFormat::ExrFloat | PictureFormat::TiffFloat)
        {
            converter.table = Some(converter.make_table());
        }
        Some(converter)
    }

    fn make_table(&self) -> Vec<f32> {
        let all: Samples = match Samples::for_format(self.from.format, 0) {
            Samples::U8(_) => Samples::U8((0..=u8::MAX).collect()),
            Samples::U16(_) => Samples::U16((0..=u16::MAX).collect()),
            Samples::F16(_) | Samples::F32(_) => {
                Samples::F16((0..=u16::MAX).map(half::f16::from_bits).collect())
            }
        };
        let mut numbers = vec![0.0; all.len()];
        all.numbers(0, &mut numbers);
        numbers.iter_mut().for_each(|number| *number = self.curve(*number));
        numbers
    }

    fn curve(&self, number: f32) -> f32 {
        if !self.is_curved() {
            return number;
        }
        if self.from.colour == self.to.colour && self.on_the_way.view.is_none() {
            return self.cut(number);
        }
        self.coded(self.light(number))
    }

    /// Returns true if numbers change other than by alpha.
    fn is_curved(&self) -> bool {
        self.from.colour != self.to.colour || self.on_the_way.changes_numbers()
    }

    /// Numbers of the old encoding as light of its primaries.
    fn light(&self, number: f32) -> f32 {
        let light = colour::to_light(self.from.colour, number);
        if let Some(ViewStep::From(view)) = self.on_the_way.view { view.undone(light) } else { light }
    }

    /// Light of the new primaries as numbers of the new encoding.
    fn coded(&self, light: f32) -> f32 {
        let light = if let Some(ViewStep::To(view)) = self.on_the_way.view { view.of(light) } else { light };
        self.cut(colour::from_light(self.to.colour, light))
    }

    fn cut(&self, number: f32) -> f32 {
        // Not `clamp`, which keeps what is no number.
        #[expect(clippy::manual_clamp, reason = "what is no number becomes 0")]
        if self.on_the_way.cut { number.max(0.0).min(1.0) } else { number }
    }

    /// The picture in the other encoding. Formats without a data window get the whole display window.
    pub fn convert(&self, picture: &Raster) -> Raster {
        let planes = if self.to.format.is_exr() && self.from.format.is_exr() {
            picture.planes.iter().collect()
        } else {
            picture.colour_planes()
        };
        let data = if self.to.format.is_exr() { picture.data } else { picture.display };
        let mut made: Vec<Plane> = planes
            .iter()
            .map(|plane| Plane {
                name: plane.name.clone(),
                samples: Samples::for_format(self.to.format, data.pixels()),
            })
            .collect();
        let place = |name: &str| planes.iter().position(|plane| plane.name == name);
        let colours: Vec<usize> = match (place("R"), place("G"), place("B"), place("Y")) {
            (Some(red), Some(green), Some(blue), _) => vec![red, green, blue],
            (_, _, _, Some(grey)) => vec![grey],
            _ if self.from.colour == ColourSpace::Data => Vec::new(),
            _ => (0..planes.len().min(1)).collect(),
        };
        let alpha = place("A").filter(|alpha| !colours.contains(alpha));
        let mut rows = vec![vec![0.0; data.width as usize]; planes.len()];
        for line in 0..data.height {
            self.load(picture, &planes, data, line, &colours, alpha, &mut rows);
            for (plane, row) in made.iter_mut().zip(&rows) {
                plane.samples.append(row);
            }
        }
        Raster { display: picture.display, data, planes: made, metadata: picture.metadata }
    }

    /// One converted row of every plane; `line` counts from the top of `window`.
    #[allow(clippy::too_many_arguments, reason = "called once, from the loop over lines")]
    fn load(
        &self,
        picture: &Raster,
        planes: &[&Plane],
        window: Window,
        line: u32,
        colours: &[usize],
        alpha: Option<usize>,
        rows: &mut [Vec<f32>],
    ) {
        let source = picture.data;
        let y = i64::from(window.y) + i64::from(line) - i64::from(source.y);
        // Columns of the window that the data window covers.
        let left = (i64::from(source.x) - i64::from(window.x)).clamp(0, i64::from(window.width));
        let right = (i64::from(source.x) + i64::from(source.width) - i64::from(window.x))
            .clamp(left, i64::from(window.width));
        rows.iter_mut().for_each(|row| row.fill(0.0));
        if y < 0 || y >= i64::from(source.height) || left == right {
            return;
        }
        let skipped = i64::from(window.x) + left - i64::from(source.x);
        let at = (y * i64::from(source.width) + skipped) as usize;
        let columns = left as usize..right as usize;
        let (unmultiply, multiply) = match alpha {
            Some(_) => {
                let curved = self.is_curved();
                let (from, to) = (is_premultiplied(self.from.format), self.multiplied);
                (from && (curved || !to), to && (curved || !from))
            }
            None => (false, false),
        };
        let by_table = self.table.as_ref().filter(|_| !unmultiply);
        for (plane, row) in planes.iter().zip(rows.iter_mut()) {
            plane.samples.numbers(at, &mut row[columns.clone()]);
        }
        let alphas: Option<Vec<f32>> = alpha.map(|alpha| rows[alpha][columns.clone()].to_vec());
        if unmultiply && let Some(alphas) = &alphas {
            for index in colours {
                for (number, alpha) in rows[*index][columns.clone()].iter_mut().zip(alphas) {
                    if *alpha != 0.0 {
                        *number /= alpha;
                    }
                }
            }
        }
        match (by_table, &self.matrix, colours) {
            (Some(table), _, _) => {
                for index in colours {
                    look_up(table, &planes[*index].samples, at, &mut rows[*index][columns.clone()]);
                }
            }
            (None, Some(matrix), [red, green, blue]) => {
                for column in columns.clone() {
                    let light = [*red, *green, *blue].map(|index| self.light(rows[index][column]));
                    for (index, row) in [*red, *green, *blue].into_iter().zip(matrix) {
                        let mixed = row[0] * light[0] + row[1] * light[1] + row[2] * light[2];
                        rows[index][column] = self.coded(mixed);
                    }
                }
            }
            _ => {
                for index in colours {
                    rows[*index][columns.clone()].iter_mut().for_each(|number| *number = self.curve(*number));
                }
            }
        }
        if multiply && let Some(alphas) = &alphas {
            for index in colours {
                for (number, alpha) in rows[*index][columns.clone()].iter_mut().zip(alphas) {
                    *number *= alpha;
                }
            }
        }
    }
}

fn look_up(table: &[f32], samples: &Samples, at: usize, row: &mut [f32]) {
    let end = at + row.len();
    match samples {
        Samples::U8(samples) => {
            row.iter_mut()
                .zip(&samples[at..end])
                .for_each(|(number, sample)| *number = table[*sample as usize]);
        }
        Samples::U16(samples) => {
            row.iter_mut()
                .zip(&samples[at..end])
                .for_each(|(number, sample)| *number = table[*sample as usize]);
        }
        Samples::F16(samples) => {
            let places = samples[at..end].iter().map(|sample| sample.to_bits() as usize);
            row.iter_mut().zip(places).for_each(|(number, place)| *number = table[place]);
        }
        // There is no table for floats.
        Samples::F32(_) => {}
    }
}
