"""Pictures, pages that turn and reliability curves: the snippets of the guide to pictures."""

import torch

import rfm
from manifolds import Sphere
from rfm import plotting
from rfm.regions import coverage
from rfm.sources import VonMisesFisher

source = VonMisesFisher(Sphere(2), torch.tensor([0.0, 0.6, 0.8]), torch.tensor(20.0))
flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x), source)
points = source.sample((200,), generator=torch.Generator().manual_seed(0))

# --8<-- [start:pictures]
view = plotting.View(south=30, north=80, west=40, east=140)
figure = plotting.plot_flow(flow, points, view=view, evaluations=1000, title="A cluster")
plotting.save_figure(figure, "cluster.svg")

# One subject, drawn in two ways: its density is computed once.
subject = plotting.subject_of(flow, points, evaluations=1000)
plotting.save_figure(plotting.picture(subject), "map.png")
page = plotting.interactive(subject)  # None for a manifold that has no page
plotting.save_page(page, "globe.html")

found = coverage(flow, points)
print(found.describe())
plotting.save_figure(plotting.plot_reliability(found), "reliability.png")
# --8<-- [end:pictures]
