import torch

from rfm.control import MotionForecast, fit_forecast, motion_from_coordinates
from rfm.datasets import motion_windows

# A hand that wanders: its velocity is a slow random walk.
generator = torch.Generator().manual_seed(0)
seconds = torch.arange(0, 40, 1 / 60, dtype=torch.float64)
velocity, track = torch.zeros(6, dtype=torch.float64), [torch.eye(4, dtype=torch.float64)]
for push in torch.randn(len(seconds) - 1, 6, generator=generator, dtype=torch.float64):
    velocity = 0.97 * velocity + 0.1 * push
    track.append(track[-1] @ motion_from_coordinates(velocity / 60))
poses = torch.stack(track)

# --8<-- [start:forecast]
windows = motion_windows(poses, seconds, horizon=0.3)  # (n, 4, 4) and (n,): body to world, times in seconds
forecast = fit_forecast(windows, steps=100, progress=False)
forecast.save("ahead")

ahead = MotionForecast.load("ahead")
recent = seconds > seconds[-1] - 0.25  # it looks back 0.2 seconds
drawn = ahead.sample(poses[recent], seconds[recent], 200)  # (200, 4, 4): where it may be in 0.3 seconds
log_p = ahead.log_prob(poses[recent], seconds[recent], drawn)  # nats, with respect to dR dp
likeliest = drawn[log_p.argmax()]
within = drawn[log_p >= log_p.quantile(0.1)]  # draws in the region that holds 90 %
# --8<-- [end:forecast]
print(likeliest, len(within))
