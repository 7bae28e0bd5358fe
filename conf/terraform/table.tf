# One item per slot, about 200 bytes each. On-demand billing suits it: a steady server writes one unit a second, its heartbeat,
# and each client reads half a unit every INTERVAL, whatever the number of slots. DynamoDB needs only the key declared.
resource "aws_dynamodb_table" "hsdo" {
  count = var.create_table ? 1 : 0

  name         = var.table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "BackendServerID"

  attribute {
    name = "BackendServerID"
    type = "N"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  deletion_protection_enabled = var.deletion_protection
  tags                        = var.tags
}

# What load balancers report: one item each, of about 300 bytes, which a client writes every 10 s, and up to once a second while
# something changes. What a client leaves behind that was killed goes after a day.
resource "aws_dynamodb_table" "reports" {
  count = var.create_table && var.report_table_name != null ? 1 : 0

  name         = var.report_table_name
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "Balancer"

  attribute {
    name = "Balancer"
    type = "S"
  }

  ttl {
    attribute_name = "Expires"
    enabled        = true
  }

  tags = var.tags
}
