"""Policy gradients: flows by FPO and FPO++ beside Gaussians by PPO, on tasks on manifolds and of gymnasium."""
