"""The few messages of Xray's gRPC API that do not change between versions, and nothing that does.

Made from the `.proto` files beside them by `tools/build_pb.py`; fields that are missing here survive a round trip as
unknown fields, which is how whole inbounds are carried without knowing their transports.
"""
