"""Servers that share no code with ours: Modbus on Debian's libmodbus (C), OPC UA on node-opcua (JavaScript)."""
