"""What tests share: generators of disks, stores and Windows trees. Nothing here is shipped."""
