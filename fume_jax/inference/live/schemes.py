"""Schemes of the addresses that a watch takes; flags read them without the libraries that open the addresses."""

# Network streams that FFmpeg opens.
CAMERA = ("rtsp", "rtsps", "rtp", "udp", "tcp", "http", "https")
WEBHOOK = ("http", "https")
# Ports of brokers.
MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
