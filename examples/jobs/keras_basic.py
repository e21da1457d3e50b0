import numpy as np
import tensorflow as tf

print("GPU Available: ", tf.test.is_gpu_available())

model = tf.keras.Sequential([
    tf.keras.layers.Dense(64, activation='relu', input_shape=(10,)),
    tf.keras.layers.Dense(64, activation='relu'),
    tf.keras.layers.Dense(1)
])

model.compile(optimizer='adam', loss='mse')

# random data in the place of yours
model.fit(np.random.rand(256, 10), np.random.rand(256, 1), epochs=2)
