"""Optuna's search for a learning rate of PPO."""

import optuna
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

options = {"steps": 4, "observation": "pooled"}


def objective(trial):
    envs = make_vec_env("natgym:natgym/Decode-v1", n_envs=4, seed=0, env_kwargs=options)
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    model = PPO("MultiInputPolicy", envs, learning_rate=rate, n_steps=16, batch_size=32, seed=0)
    model.learn(128)
    trial.set_user_attr("episodes", len(model.ep_info_buffer))
    envs.seed(1)  # every trial is judged on the same images
    return evaluate_policy(model, envs, n_eval_episodes=20)[0]


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=3)
episodes = sum(trial.user_attrs["episodes"] for trial in study.trials)
print(f"{episodes} episodes, mean reward {study.best_value:.3f} with {study.best_params}")
