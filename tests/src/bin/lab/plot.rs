//! Pictures of runs, as SVG for `docs/scheduling.md`.

use std::{error::Error, path::Path};

use plotters::prelude::*;

use crate::{engine::Run, workload::Workload};

type Drawn = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (900, 300);
const COLOURS: [RGBColor; 5] = [
    RGBColor(47, 111, 171),
    RGBColor(222, 137, 42),
    RGBColor(92, 158, 96),
    RGBColor(160, 95, 160),
    RGBColor(120, 120, 120),
];

/// Seconds between two columns.
const STEP: u64 = 60;

/// Which show has how many GPUs, over time.
pub(crate) fn shows(file: &Path, title: &str, workload: &Workload, run: &Run, hours: f64) -> Drawn {
    let columns = (hours * 3600.0) as u64 / STEP;
    let mut height = vec![vec![0.0_f64; columns as usize]; workload.shows.len()];
    for spell in &run.spells {
        let show = workload.jobs[spell.job].show;
        for (column, cell) in height[show].iter_mut().enumerate() {
            let (from, to) = (column as u64 * STEP * 1000, (column as u64 + 1) * STEP * 1000);
            let inside = spell.to.min(to).saturating_sub(spell.from.max(from));
            *cell += inside as f64 / (STEP * 1000) as f64;
        }
    }
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(36)
        .build_cartesian_2d(0.0..hours, 0.0..workload.gpus.len() as f64)?;
    chart.configure_mesh().x_desc("hours").y_desc("GPUs").light_line_style(WHITE).draw()?;
    // From the top of the stack down, so that each covers the rest of the one before.
    for show in (0..workload.shows.len()).rev() {
        let top = |column: usize| (0..=show).map(|below| height[below][column]).sum::<f64>();
        let points = (0..columns as usize).map(|column| (column as f64 * STEP as f64 / 3600.0, top(column)));
        let colour = COLOURS[show % COLOURS.len()];
        let label = format!("show {show}, weight {}", workload.shows[show]);
        chart
            .draw_series(AreaSeries::new(points, 0.0, colour.filled()))?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Bars, one for each scheduler, of a figure's median, with a mark at `goal`.
pub(crate) fn bars(file: &Path, title: &str, names: &[&str], values: &[f64], goal: Option<f64>) -> Drawn {
    let most = values.iter().copied().fold(0.0, f64::max) * 1.15;
    let root = SVGBackend::new(file, (SIZE.0, 60 + 30 * names.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .margin_left(160)
        .x_label_area_size(24)
        .build_cartesian_2d(0.0..most, 0.0..names.len() as f64)?;
    chart.configure_mesh().disable_y_axis().disable_y_mesh().light_line_style(WHITE).draw()?;
    for (index, (name, value)) in names.iter().zip(values).enumerate() {
        let bottom = (names.len() - 1 - index) as f64;
        let colour = if index == 0 { COLOURS[0] } else { COLOURS[4] };
        let bar = Rectangle::new([(0.0, bottom + 0.15), (*value, bottom + 0.85)], colour.filled());
        chart.draw_series([bar])?;
        let place = chart.backend_coord(&(0.0, bottom + 0.5));
        root.draw(&Text::new((*name).to_owned(), (12, place.1 - 7), ("sans-serif", 14)))?;
        let place = chart.backend_coord(&(*value, bottom + 0.5));
        root.draw(&Text::new(format!("{value:.3}"), (place.0 + 6, place.1 - 7), ("sans-serif", 13)))?;
    }
    if let Some(goal) = goal {
        let line = [(goal, 0.0), (goal, names.len() as f64)];
        chart.draw_series(LineSeries::new(line, RED.stroke_width(2)))?;
    }
    root.present()?;
    Ok(())
}
