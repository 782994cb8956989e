//! The looks of the workflow `film-look` as 3D lookup tables (`.cube`, Adobe's Cube LUT Specification 1.0).
//!
//! Each is a function of sRGB-coded colour, sampled; nothing is copied from a film stock or anybody's table. A pure
//! function: the same bytes on every machine.

use std::fmt::Write as _;

/// Points along each side of the cube.
pub const SIZE: usize = 33;

type Rgb = [f64; 3];

/// A look.
pub struct Look {
    /// Name of the file.
    pub file: &'static str,
    pub title: &'static str,
    grade: fn(Rgb) -> Rgb,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").field("file", &self.file).finish_non_exhaustive()
    }
}

pub const LOOKS: [Look; 5] = [
    Look { file: "Cinematic_Teal_Orange.cube", title: "Cinematic Teal Orange", grade: teal_orange },
    Look { file: "Film_Noir_High_Contrast.cube", title: "Film Noir High Contrast", grade: noir },
    Look { file: "Vintage_Kodak_Vision3.cube", title: "Vintage Kodak Vision3", grade: vintage },
    Look { file: "Modern_HDR_Look.cube", title: "Modern HDR Look", grade: modern },
    Look { file: "Bleach_Bypass_War.cube", title: "Bleach Bypass War", grade: bleach_bypass },
];

impl Look {
    /// What the look makes of a colour, sRGB-coded, 0 to 1.
    pub fn grade(&self, colour: Rgb) -> Rgb {
        (self.grade)(colour).map(|value| value.clamp(0.0, 1.0))
    }

    /// The text of the `.cube` file; red runs fastest.
    pub fn cube(&self) -> String {
        let mut text = format!(
            "TITLE \"{}\"\nLUT_3D_SIZE {SIZE}\nDOMAIN_MIN 0.0 0.0 0.0\nDOMAIN_MAX 1.0 1.0 1.0\n",
            self.title
        );
        let at = |index: usize| index as f64 / (SIZE - 1) as f64;
        for (blue, green) in (0..SIZE).flat_map(|blue| (0..SIZE).map(move |green| (blue, green))) {
            for red in 0..SIZE {
                let [red, green, blue] = self.grade([at(red), at(green), at(blue)]);
                // Writing to a text cannot fail.
                let _ = writeln!(text, "{red:.6} {green:.6} {blue:.6}");
            }
        }
        text
    }
}

/// Whether `text` is a whole table in that format: a cube, or a curve for each channel.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str) -> Result<(), String> {
    let mut entries = None;
    let mut found = 0_u64;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let mut words = line.split_whitespace();
        match words.next() {
            None => {}
            Some(word) if word.starts_with('#') => {}
            Some(word @ ("LUT_3D_SIZE" | "LUT_1D_SIZE")) => {
                // The specification's limits.
                let (most, power) = if word == "LUT_3D_SIZE" { (256, 3) } else { (65_536, 1) };
                let size = words.next().and_then(|size| size.parse::<u64>().ok());
                let size = size.filter(|size| (2..=most).contains(size));
                let size =
                    size.ok_or_else(|| format!("line {number}: {word} wants a number of 2 to {most}"))?;
                if entries.replace(size.pow(power)).is_some() {
                    return Err(format!("line {number}: a second size; a file holds one table"));
                }
            }
            Some(word) if word.starts_with(|first: char| first.is_ascii_alphabetic()) && word != "nan" => {}
            Some(word) => {
                let numbers = [Some(word), words.next(), words.next()];
                let is_number =
                    |word: Option<&str>| word.is_some_and(|word| word.parse().is_ok_and(f64::is_finite));
                if !numbers.into_iter().all(is_number) || words.next().is_some() {
                    return Err(format!("line {number}: three numbers are due"));
                }
                found += 1;
            }
        }
    }
    match entries {
        None => Err("no LUT_3D_SIZE and no LUT_1D_SIZE: it is no .cube table".to_owned()),
        Some(entries) if entries != found => {
            Err(format!("{found} lines of numbers where {entries} are due: it is cut off or damaged"))
        }
        Some(_) => Ok(()),
    }
}

fn mix(from: f64, to: f64, part: f64) -> f64 {
    from + (to - from) * part
}

/// Rec. 709 weights.
fn luma([red, green, blue]: Rgb) -> f64 {
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

/// More or less colour around the same luma.
fn saturate(colour: Rgb, amount: f64) -> Rgb {
    let grey = luma(colour);
    colour.map(|value| mix(grey, value, amount))
}

/// `3x² - 2x³`, mixed in: contrast around one half that keeps black and white.
fn s_curve(value: f64, amount: f64) -> f64 {
    let value = value.clamp(0.0, 1.0);
    mix(value, value * value * (3.0 - 2.0 * value), amount)
}

/// Adds `tint` where `part` of the picture's luma says so.
fn tint(colour: Rgb, tint: Rgb, part: f64) -> Rgb {
    [0, 1, 2].map(|at| colour[at] + tint[at] * part)
}

/// Shadows to teal, lights and skin to orange.
fn teal_orange(colour: Rgb) -> Rgb {
    let bright = luma(colour);
    let shaded = tint(colour, [-0.06, 0.015, 0.06], (1.0 - bright).powi(2));
    let lit = tint(shaded, [0.07, 0.015, -0.07], bright * (1.3 - 0.6 * bright));
    saturate(lit, 1.08).map(|value| s_curve(value, 0.35))
}

/// Black and white as on a film that sees red well, with deep shadows.
fn noir([red, green, blue]: Rgb) -> Rgb {
    let grey = 0.35 * red + 0.5 * green + 0.15 * blue;
    let hard = s_curve(s_curve(grey, 1.0), 0.6);
    [(hard - 0.02).max(0.0) / 0.98; 3]
}

/// A soft negative: lifted blacks, a long shoulder, warm lights and shadows a little green.
fn vintage(colour: Rgb) -> Rgb {
    let bright = luma(colour);
    let soft = colour.map(|value| 0.035 + 0.93 * (1.0 - (1.0 - value).powf(1.15)).powf(1.12));
    let warm = tint(soft, [0.045, 0.01, -0.055], bright);
    saturate(tint(warm, [-0.012, 0.012, 0.004], 1.0 - bright), 0.86)
}

/// Open shadows, lights that roll off late, rich colour.
fn modern(colour: Rgb) -> Rgb {
    let open = colour.map(|value| {
        let lifted = value.powf(0.86);
        let knee = 0.8;
        if lifted <= knee {
            lifted
        } else {
            knee + (1.0 - knee) * (1.0 - (1.0 - (lifted - knee) / (1.0 - knee)).powf(1.3))
        }
    });
    saturate(open.map(|value| s_curve(value, 0.2)), 1.18)
}

/// Silver left in the print: the picture's own grey laid over it.
fn bleach_bypass(colour: Rgb) -> Rgb {
    let grey = luma(colour);
    let overlaid = colour
        .map(|value| if grey < 0.5 { 2.0 * value * grey } else { 1.0 - 2.0 * (1.0 - value) * (1.0 - grey) });
    let mixed = [0, 1, 2].map(|at| mix(colour[at], overlaid[at], 0.75));
    tint(saturate(mixed, 0.45), [-0.008, 0.0, 0.008], 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_is_a_whole_cube_that_keeps_its_greys_in_order() {
        for look in &LOOKS {
            let text = look.cube();
            let lines: Vec<Vec<f64>> = text
                .lines()
                .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()))
                .map(|line| line.split(' ').map(|number| number.parse().expect("a number")).collect())
                .collect();
            assert_eq!(lines.len(), SIZE.pow(3), "{}", look.file);
            assert_eq!(check(&text), Ok(()), "{}", look.file);
            let cut = &text[..text.len() / 2];
            assert!(check(cut).is_err_and(|why| why.contains("are due")), "{}", look.file);
            assert!(lines.iter().flatten().all(|value| (0.0..=1.0).contains(value)), "{}", look.file);
            // Red first: the second line is darkest but for a little red.
            let [red, ..] = look.grade([1.0 / 32.0, 0.0, 0.0]);
            assert!((lines[1][0] - red).abs() < 1e-6, "{}", look.file);
            let greys: Vec<f64> = (0..SIZE).map(|at| luma(look.grade([at as f64 / 32.0; 3]))).collect();
            assert!(greys.windows(2).all(|pair| pair[0] < pair[1] + 1e-9), "{}: {greys:?}", look.file);
            assert!(greys[0] < 0.08 && greys[32] > 0.9, "{}: {greys:?}", look.file);
            // Without steps that would show as bands.
            assert!(greys.windows(2).all(|pair| pair[1] - pair[0] < 0.12), "{}: {greys:?}", look.file);
        }
    }

    #[test]
    fn what_is_no_table_is_told() {
        let curve = "# a curve\nTITLE \"x\"\nLUT_1D_SIZE 2\nDOMAIN_MIN 0 0 0\n\n0 0 0\n1.0 1 1e0\n";
        assert_eq!(check(curve), Ok(()));
        for (text, why) in [
            ("", "no LUT_3D_SIZE"),
            ("0 64 128\n0 0 0\n", "no LUT_3D_SIZE"),
            ("LUT_3D_SIZE 1\n", "2 to 256"),
            ("LUT_3D_SIZE x\n", "2 to 256"),
            ("LUT_1D_SIZE 2\n0 0 0\n0 0\n", "line 3: three numbers"),
            ("LUT_1D_SIZE 2\n0 0 0\nnan 0 0\n", "line 3: three numbers"),
            ("LUT_1D_SIZE 2\nLUT_3D_SIZE 2\n", "a second size"),
            ("LUT_3D_SIZE 2\n0 0 0\n", "1 lines of numbers where 8"),
        ] {
            assert!(check(text).is_err_and(|told| told.contains(why)), "{text:?}: {:?}", check(text));
        }
    }

    #[test]
    fn looks_are_what_they_are_called() {
        let [teal, noir, vintage, modern, bleach] = &LOOKS;
        let [red, _, blue] = teal.grade([0.1; 3]);
        assert!(blue > red + 0.02, "shadows are teal");
        let [red, _, blue] = teal.grade([0.7; 3]);
        assert!(red > blue + 0.02, "lights are orange");
        let [red, green, blue] = noir.grade([0.9, 0.2, 0.1]);
        assert!((red - green).abs() < 1e-12 && (green - blue).abs() < 1e-12, "noir has no colour");
        assert!(vintage.grade([0.0; 3])[0] > 0.01, "blacks are lifted");
        assert!(luma(modern.grade([0.2; 3])) > 0.2, "shadows are open");
        let spread = |[red, _, blue]: Rgb| red - blue;
        assert!(
            spread(bleach.grade([0.8, 0.4, 0.2])) < 0.6 * spread([0.8, 0.4, 0.2]),
            "little colour is left"
        );
    }
}
