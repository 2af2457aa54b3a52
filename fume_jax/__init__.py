"""FUME in JAX: segments CO2 and CH4 plumes in pairs of infrared frames and tells the pH state; see README.md."""
