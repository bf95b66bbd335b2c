"""The Keras example «Deep Q-Learning for Atari Breakout» on TensorFlow, timed while it learns.

    python keras_example.py [--seconds 20] [--threads 0]

Its way of doing things is kept: five Python lists as the replay memory, a float32 stack a transition; `predict` on the
target network; eager calls of the model; one game. Kept are its numbers too: batch 32, an update every fourth step,
Adam 2.5e-4 with clip norm 1, Huber, γ 0.99, the target copied every 10,000 steps, a memory of 100,000. Different is
what would not let it be timed: ε is 0.1 from the start, and no step is random for being early. In its favour, `predict`
draws no progress bar, no video is recorded, and the lists are short, so that drawing from them is quick.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from notebook_game import NotebookGame
from numpy.typing import NDArray
from stopwatch import Stopwatch

SEED = 42
NUM_ACTIONS = 4
GAMMA = 0.99
EPSILON = 0.1
BATCH_SIZE = 32
UPDATE_EVERY = 4  # steps
TARGET_EVERY = 10_000  # steps
CAPACITY = 100_000
LONGEST_EPISODE = 10_000


def make_model() -> keras.Model:
    """The network of Mnih et al. 2015, planes last."""
    planes = layers.Input((84, 84, 4))
    features = layers.Conv2D(32, 8, strides=4, activation="relu")(planes)
    features = layers.Conv2D(64, 4, strides=2, activation="relu")(features)
    features = layers.Conv2D(64, 3, strides=1, activation="relu")(features)
    hidden = layers.Dense(512, activation="relu")(layers.Flatten()(features))
    return keras.Model(planes, layers.Dense(NUM_ACTIONS, activation="linear")(hidden))


class Example:
    """The notebook's variables: two models, an optimiser, and the lists."""

    def __init__(self) -> None:
        self.model, self.target = make_model(), make_model()
        self.optimizer = keras.optimizers.Adam(learning_rate=0.00025, clipnorm=1.0)
        self.huber = keras.losses.Huber()
        self.states: list[NDArray[np.float32]] = []
        self.next_states: list[NDArray[np.float32]] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.dones: list[bool] = []

    def act(self, state: NDArray[np.float32]) -> int:
        """ε-greedy."""
        if np.random.rand(1)[0] < EPSILON:
            return int(np.random.choice(NUM_ACTIONS))
        values = self.model(tf.expand_dims(tf.convert_to_tensor(state), 0), training=False)
        return int(tf.argmax(values[0]).numpy())

    def remember(
        self, state: NDArray[np.float32], action: int, reward: float, next_state: NDArray[np.float32], done: bool
    ) -> None:
        """Add to the end of every list."""
        for items, item in zip(self._lists(), (state, next_state, action, reward, done), strict=True):
            items.append(item)

    def forget(self) -> None:
        """Drop the oldest transition of a full memory."""
        if len(self.rewards) > CAPACITY:
            for items in self._lists():
                del items[:1]

    def _lists(self) -> tuple[list, ...]:
        return self.states, self.next_states, self.actions, self.rewards, self.dones

    def learn(self) -> None:
        """One update."""
        drawn = np.random.choice(range(len(self.dones)), size=BATCH_SIZE)
        states = np.array([self.states[i] for i in drawn])
        next_states = np.array([self.next_states[i] for i in drawn])
        rewards = [self.rewards[i] for i in drawn]
        taken = tf.one_hot([self.actions[i] for i in drawn], NUM_ACTIONS)
        dones = tf.convert_to_tensor([float(self.dones[i]) for i in drawn])

        future = tf.reduce_max(self.target.predict(next_states, verbose=0), axis=1)
        # at an episode's end the target is -1
        wanted = (rewards + GAMMA * future) * (1 - dones) - dones
        with tf.GradientTape() as tape:
            values = tf.reduce_sum(self.model(states) * taken, axis=1)
            loss = self.huber(wanted, values)
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))


def play(watch: Stopwatch) -> None:
    """Play and learn until the time is over."""
    game, example = NotebookGame(SEED), Example()
    step = 0
    while True:
        state = game.reset()
        for _ in range(1, LONGEST_EPISODE):
            step += 1
            action = example.act(state)
            next_state, reward, done = game.step(action)
            example.remember(state, action, reward, next_state, done)
            state = next_state
            if step % UPDATE_EVERY == 0 and len(example.dones) > BATCH_SIZE:
                example.learn()
            if step % TARGET_EVERY == 0:
                example.target.set_weights(example.model.get_weights())
            example.forget()
            if not watch.step():
                return
            if done:
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=0, help="0: TensorFlow's own choice")
    options = parser.parse_args()
    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    np.random.seed(SEED)
    watch = Stopwatch(options.seconds)
    play(watch)
    watch.report("keras", "tensorflow", "tensorflow-cpu", "gymnasium", "ale-py", "numpy")


if __name__ == "__main__":
    main()
