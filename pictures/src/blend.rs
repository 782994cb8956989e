//! Cross-fades: a weighted mean of pictures, in light, of colour multiplied by alpha.

use hearth_workflows::format::{ColourSpace, Encoding};

use crate::{
    colour,
    raster::{Plane, Raster, Samples},
};

/// The mean of `pictures`, each with its weight; the weights are taken relative to their sum. All are of the
/// same encoding, size and channels; the first one's windows and metadata are the result's.
///
/// Where every picture has the same value, the result has that value, to the bit.
pub fn blend(pictures: &[(f32, Raster)], encoding: Encoding) -> Option<Raster> {
    let (_, first) = pictures.first()?;
    let same = pictures.iter().all(|(_, other)| {
        other.data == first.data
            && other.planes.len() == first.planes.len()
            && other.planes.iter().zip(&first.planes).all(|(a, b)| a.name == b.name)
    });
    let total: f32 = pictures.iter().map(|(weight, _)| weight).sum();
    if !same || total <= 0.0 {
        return None;
    }
    let weights: Vec<f32> = pictures.iter().map(|(weight, _)| weight / total).collect();
    let straight = !encoding.format.is_exr();
    let alpha = first.planes.iter().position(|plane| plane.name == "A").filter(|_| straight);
    let width = first.data.width as usize;
    let mut planes: Vec<Plane> = first
        .planes
        .iter()
        .map(|plane| Plane {
            name: plane.name.clone(),
            samples: Samples::for_format(encoding.format, first.data.pixels()),
        })
        .collect();
    let (mut row, mut mean, mut sums) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
    let mut alphas = vec![vec![1.0; width]; pictures.len()];
    for line in 0..first.data.height as usize {
        let at = line * width;
        if let Some(alpha) = alpha {
            sums.fill(0.0);
            for ((_, picture), (weight, alphas)) in pictures.iter().zip(weights.iter().zip(&mut alphas)) {
                picture.planes[alpha].samples.numbers(at, alphas);
                sums.iter_mut().zip(&*alphas).for_each(|(sum, alpha)| *sum += weight * alpha);
            }
        }
        for (index, plane) in planes.iter_mut().enumerate() {
            let is_colour = matches!(plane.name.as_str(), "R" | "G" | "B" | "Y");
            let space = if is_colour { encoding.colour } else { ColourSpace::Data };
            let weighted = alpha.is_some() && is_colour;
            let curved = !matches!(space, ColourSpace::Linear | ColourSpace::Acescg | ColourSpace::Data);
            mean.fill(0.0);
            for ((_, picture), (weight, alphas)) in pictures.iter().zip(weights.iter().zip(&alphas)) {
                picture.planes[index].samples.numbers(at, &mut row);
                if curved {
                    row.iter_mut().for_each(|number| *number = colour::to_light(space, *number));
                }
                if weighted {
                    row.iter_mut().zip(alphas).for_each(|(light, alpha)| *light *= alpha);
                }
                mean.iter_mut().zip(&row).for_each(|(sum, light)| *sum += weight * light);
            }
            // Rows that agree are taken as they are: no rounding, no curve.
            if agree(pictures, index, at, width) {
                first.planes[index].samples.numbers(at, &mut mean);
            } else {
                if weighted {
                    let covered = mean.iter_mut().zip(&sums).filter(|(_, alpha)| **alpha != 0.0);
                    covered.for_each(|(light, alpha)| *light /= alpha);
                }
                if curved {
                    mean.iter_mut().for_each(|light| *light = colour::from_light(space, *light));
                }
            }
            plane.samples.append(&mean);
        }
    }
    Some(Raster { planes, ..first.clone_without_planes() })
}

fn agree(pictures: &[(f32, Raster)], plane: usize, at: usize, width: usize) -> bool {
    let Some(((_, first), rest)) = pictures.split_first() else { return true };
    let end = at + width;
    rest.iter().all(|(_, other)| match (&first.planes[plane].samples, &other.planes[plane].samples) {
        (Samples::U8(a), Samples::U8(b)) => a[at..end] == b[at..end],
        (Samples::U16(a), Samples::U16(b)) => a[at..end] == b[at..end],
        (Samples::F16(a), Samples::F16(b)) => a[at..end] == b[at..end],
        (Samples::F32(a), Samples::F32(b)) => a[at..end] == b[at..end],
        _ => false,
    })
}
