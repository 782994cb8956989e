//! Transfer curves and primaries.
//!
//! Every space is described by a curve from its numbers to light and a matrix from its primaries to Rec. 709's.
//! Curves are mirrored for negative numbers, so that a way there and back keeps them.

use hearth_workflows::format::ColourSpace;

/// Chromaticities (x, y) of red, green, blue and white.
type Primaries = [[f64; 2]; 4];

type Matrix = [[f64; 3]; 3];

const REC_709: Primaries = [[0.64, 0.33], [0.30, 0.60], [0.15, 0.06], [0.3127, 0.3290]];

/// S-2014-004.
const AP1: Primaries = [[0.713, 0.293], [0.165, 0.830], [0.128, 0.044], [0.321_68, 0.337_67]];

/// Cone response by which whites are adapted (Bradford; Lam 1985), as ACES does.
const BRADFORD: Matrix = [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]];

/// Constants of ACEScct (S-2016-001).
const CCT_BREAK: f32 = 0.007_812_5;
const CCT_CODE_BREAK: f32 = 0.155_251_14;
const CCT_SLOPE: f32 = 10.540_237;
const CCT_OFFSET: f32 = 0.072_905_53;

/// From numbers to light.
pub(crate) fn to_light(space: ColourSpace, number: f32) -> f32 {
    let mirrored = |curve: fn(f32) -> f32| if number < 0.0 { -curve(-number) } else { curve(number) };
    match space {
        ColourSpace::Linear | ColourSpace::Acescg | ColourSpace::Data => number,
        ColourSpace::Srgb => {
            mirrored(
                |number| {
                    if number <= 0.040_45 { number / 12.92 } else { ((number + 0.055) / 1.055).powf(2.4) }
                },
            )
        }
        ColourSpace::Rec709 => mirrored(|number| {
            if number < 0.081_242_86 {
                number / 4.5
            } else {
                ((number + 0.099_296_8) / 1.099_296_8).powf(1.0 / 0.45)
            }
        }),
        // Its toe is straight, below 0 too.
        ColourSpace::Acescct => {
            if number <= CCT_CODE_BREAK {
                (number - CCT_OFFSET) / CCT_SLOPE
            } else {
                (number * 17.52 - 9.72).exp2()
            }
        }
    }
}

/// From light to numbers.
pub(crate) fn from_light(space: ColourSpace, light: f32) -> f32 {
    let mirrored = |curve: fn(f32) -> f32| if light < 0.0 { -curve(-light) } else { curve(light) };
    match space {
        ColourSpace::Linear | ColourSpace::Acescg | ColourSpace::Data => light,
        ColourSpace::Srgb => {
            mirrored(
                |light| {
                    if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 }
                },
            )
        }
        ColourSpace::Rec709 => mirrored(|light| {
            if light < 0.018_053_97 { light * 4.5 } else { 1.099_296_8 * light.powf(0.45) - 0.099_296_8 }
        }),
        ColourSpace::Acescct => {
            if light <= CCT_BREAK {
                light * CCT_SLOPE + CCT_OFFSET
            } else {
                (light.log2() + 9.72) / 17.52
            }
        }
    }
}

fn primaries(space: ColourSpace) -> &'static Primaries {
    match space {
        ColourSpace::Acescg | ColourSpace::Acescct => &AP1,
        ColourSpace::Linear | ColourSpace::Srgb | ColourSpace::Rec709 | ColourSpace::Data => &REC_709,
    }
}

/// From light of one space's primaries to light of the other's; `None` when they are the same.
pub(crate) fn matrix(from: ColourSpace, to: ColourSpace) -> Option<[[f32; 3]; 3]> {
    let (from, to) = (primaries(from), primaries(to));
    if from == to {
        return None;
    }
    let whole = product(&inverse(&to_xyz(to)), &product(&adaptation(from[3], to[3]), &to_xyz(from)));
    Some(whole.map(|row| row.map(|number| number as f32)))
}

/// XYZ of a chromaticity with luminance 1.
fn xyz([x, y]: [f64; 2]) -> [f64; 3] {
    [x / y, 1.0, (1.0 - x - y) / y]
}

/// From light of these primaries to XYZ (SMPTE RP 177).
fn to_xyz([red, green, blue, white]: &Primaries) -> Matrix {
    let columns = [xyz(*red), xyz(*green), xyz(*blue)];
    let rows = transposed(&columns);
    let scale = apply(&inverse(&rows), xyz(*white));
    rows.map(|row| [row[0] * scale[0], row[1] * scale[1], row[2] * scale[2]])
}

fn adaptation(from: [f64; 2], to: [f64; 2]) -> Matrix {
    let (from, to) = (apply(&BRADFORD, xyz(from)), apply(&BRADFORD, xyz(to)));
    let mut scaled = BRADFORD;
    for (index, row) in scaled.iter_mut().enumerate() {
        row.iter_mut().for_each(|number| *number *= to[index] / from[index]);
    }
    product(&inverse(&BRADFORD), &scaled)
}

fn transposed(m: &Matrix) -> Matrix {
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| m[column][row]))
}

fn apply(m: &Matrix, v: [f64; 3]) -> [f64; 3] {
    m.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2])
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let columns = transposed(b);
    a.map(|row| columns.map(|column| row[0] * column[0] + row[1] * column[1] + row[2] * column[2]))
}

fn inverse(m: &Matrix) -> Matrix {
    // Cofactors, by cyclic indices; the matrices here are far from singular.
    let minor = |row: usize, column: usize| {
        let at = |down: usize, right: usize| m[(row + down) % 3][(column + right) % 3];
        at(1, 1) * at(2, 2) - at(1, 2) * at(2, 1)
    };
    let determinant: f64 = (0..3).map(|column| m[0][column] * minor(0, column)).sum();
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| minor(column, row) / determinant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_leads_back_and_meets_its_own_toe() {
        for space in ColourSpace::ALL {
            for number in [-0.5, -0.01, 0.0, 0.001, 0.018, 0.04, 0.155, 0.18, 0.5, 1.0] {
                let back = from_light(*space, to_light(*space, number));
                assert!((back - number).abs() < 1e-5, "{space}: {number} came back as {back}");
            }
            let mut before = f32::MIN;
            for step in -100..1000 {
                let light = to_light(*space, step as f32 / 1000.0);
                assert!(light >= before, "{space} falls at {step}");
                before = light;
            }
        }
    }

    /// Published values: IEC 61966-2-1, S-2016-001 (18 % grey), and the ACES configuration's matrix.
    #[test]
    fn curves_and_matrices_are_the_published_ones() {
        assert!((from_light(ColourSpace::Srgb, 0.18) - 0.461_36).abs() < 1e-5);
        assert!((from_light(ColourSpace::Rec709, 0.18) - 0.409_0).abs() < 1e-3);
        assert!((from_light(ColourSpace::Acescct, 0.18) - 0.413_588_4).abs() < 1e-6);
        let known = [
            [0.613_097_4, 0.339_523_1, 0.047_379_5],
            [0.070_193_7, 0.916_353_9, 0.013_452_4],
            [0.020_615_6, 0.109_569_8, 0.869_814_6],
        ];
        let found = matrix(ColourSpace::Linear, ColourSpace::Acescg).expect("other primaries");
        for (found, known) in found.iter().flatten().zip(known.iter().flatten()) {
            assert!((found - known).abs() < 2e-5, "{found} is not {known}");
        }
        assert_eq!(matrix(ColourSpace::Srgb, ColourSpace::Linear), None);
    }
}
