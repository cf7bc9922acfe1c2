"""Moving pictures of a flow as files: GIF, and MP4 where ffmpeg is."""

import io
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfm.plotting.figures import DENSITY_COLOURS, INK, ON_DENSITY, PAPER, SAMPLE_COLOUR, new_figure
from rfm.plotting.maps import world_map
from rfm.plotting.motion import Motion
from rfm.plotting.panels import Array, colour_limits, point_style
from rfm.records.descriptions import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

MOVIES = (".gif", ".mp4")
FRAME_MILLISECONDS, _LAST_MILLISECONDS = 80, 1600
_COLOURS = 96
"""Of a GIF: more make it larger, and are not seen."""


def save_animation(motion: Motion, path: str | os.PathLike[str], dots_per_inch: float = 70) -> None:
    """Write a moving picture as a GIF or MP4 file, completely or not at all.

    Particles go from the source to time 1; arrows on some of them are their velocities, as far as they would come in an
    eighth of the flow's time. On ``Sphere(2)`` and in the plane the density at each time is behind them, in colours
    whose scale is that of time 1. The last frame stands for a while.

    Args:
        motion: of `rfm.plotting.motion_of`.
        path: a name that ends in one of `MOVIES`; its folder is made if need be, and an existing file is replaced.
        dots_per_inch: of the picture, which is 8 inches wide.

    Raises:
        ValueError: the name ends otherwise, or in .mp4 and there is no ffmpeg on the path.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in MOVIES:
        raise ValueError(
            f"save_animation: moving pictures are written as GIF or MP4, got the name {path.name!r}; end it in "
            f"{' or '.join(MOVIES)}"
        )
    if ending == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError("save_animation: MP4 needs the program ffmpeg, which is not on the path; end the name in .gif")
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _write_gif if ending == ".gif" else _write_mp4
    write_atomically(path, lambda file: write(motion, file, dots_per_inch))


def frames(motion: Motion) -> Iterator["Figure"]:
    """Yield the figure of a motion at each of its times: the same figure, drawn anew."""
    figure = new_figure(8, 4.8 if motion.scene.kind == "map" else 6.4, motion.title)
    axes = _axes(figure, motion)
    limits = density_limits(motion)
    for i, t in enumerate(motion.times):
        drawn = _draw(axes, motion, i, limits)
        axes.set_title(f"t = {t:.2f}", fontsize=13, color=INK, family="monospace")
        yield figure
        for artist in drawn:
            artist.remove()


def density_limits(motion: Motion) -> tuple[float, float]:
    """Return the limits of the colours of all densities: those that suit the last one."""
    if not motion.densities:
        return 0.0, 1.0
    _, rows, values = motion.densities[-1]
    return colour_limits(values, np.log(np.cos(rows).clip(min=1e-9))[:, None] if motion.scene.kind == "map" else 0.0)


def _axes(figure: "Figure", motion: Motion) -> Any:
    scene = motion.scene
    if scene.kind == "map":
        place = figure.add_gridspec(1, 1)[0]
        return world_map(figure, place, "", earth=scene.earth, dark=bool(motion.densities))
    axes: Any = figure.add_subplot(projection="3d" if scene.kind == "space" else None)
    for name, limits, axis in zip(scene.names, scene.limits, "xyz", strict=False):
        getattr(axes, f"set_{axis}label")(name, fontsize=10, color=INK, parse_math=False)
        getattr(axes, f"set_{axis}lim")(*limits)
    axes.tick_params(labelsize=8, colors=INK)
    if scene.kind == "plane":
        axes.set_facecolor(PAPER)
        axes.set_box_aspect(1)
    return axes


def _draw(axes: Any, motion: Motion, i: int, limits: tuple[float, float]) -> list[Any]:
    """Draw a frame, and return what is to be removed after it."""
    scene, drawn = motion.scene, []
    if motion.densities:
        x, y, values = motion.densities[i]
        colours: dict[str, Any] = {"cmap": DENSITY_COLOURS, "vmin": limits[0], "vmax": limits[1], "zorder": 0}
        # The colours of nothing, where a density is zero to rounding.
        values = values.clip(min=-1e4)
        drawn.append(axes.pcolormesh(x, y, values, shading="gouraud", rasterized=True, **colours))
    at, ahead = scene.place(motion.points[i]), scene.place(motion.arrows[i])
    colour = ON_DENSITY[SAMPLE_COLOUR] if motion.densities else SAMPLE_COLOUR
    style = {"color": colour, "zorder": 3, **point_style(len(at))}
    drawn.append(axes.scatter(*at.T, **style))
    arrows = on_one_side(at[: len(ahead)], ahead, scene.turn)
    if scene.kind == "space":
        drawn.append(axes.quiver(*arrows[0].T, *(arrows[1] - arrows[0]).T, color=INK, linewidth=0.8))
    else:
        shade = "white" if motion.densities else INK
        shape = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0025, "color": shade, "zorder": 4}
        drawn.append(axes.quiver(*arrows[0].T, *(arrows[1] - arrows[0]).T, **shape))
    return drawn


def on_one_side(at: Array, ahead: Array, turn: float) -> tuple[Array, Array]:
    """Return the arrows that do not leave the page at one side and come back at the other."""
    if not turn:
        return at, ahead
    kept = np.abs(ahead - at).max(axis=1) < turn / 4
    return at[kept], ahead[kept]


def _images(figures: Iterable["Figure"], dots_per_inch: float) -> Iterator["Image"]:
    from PIL import Image

    for figure in figures:
        with io.BytesIO() as buffer:
            figure.savefig(buffer, format="png", dpi=dots_per_inch)
            buffer.seek(0)
            yield Image.open(buffer).convert("RGB")


def write_gif(
    figures: Iterable["Figure"],
    file: Path,
    milliseconds: int = FRAME_MILLISECONDS,
    last: int = _LAST_MILLISECONDS,
    colours: int = _COLOURS,
    dots_per_inch: float = 70,
) -> None:
    """Write figures as a GIF that begins again.

    Args:
        figures: of one size; each is drawn before the next is taken.
        file: any name.
        milliseconds: how long a frame stands.
        last: how long the last one does.
        colours: how many.
        dots_per_inch: of the picture.
    """
    from PIL import Image

    images = list(_images(figures, dots_per_inch))
    # The colours of the last frame for all: a palette for each would make colours flicker, and the file larger.
    palette = images[-1].quantize(colours)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [milliseconds] * len(rest) + [last]
    first.save(file, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)


def _write_gif(motion: Motion, file: Path, dots_per_inch: float) -> None:
    write_gif(frames(motion), file, dots_per_inch=dots_per_inch)


def _write_mp4(motion: Motion, file: Path, dots_per_inch: float) -> None:
    from matplotlib.animation import FFMpegWriter

    # Even numbers of pixels, as the codec requires; the format by name, as a file is written under another one first.
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-f", "mp4"]
    writer = FFMpegWriter(fps=1000 // FRAME_MILLISECONDS, codec="h264", extra_args=even)
    shown = frames(motion)
    figure = next(shown)
    with writer.saving(figure, str(file), dots_per_inch):
        writer.grab_frame()
        for _ in shown:
            writer.grab_frame()
