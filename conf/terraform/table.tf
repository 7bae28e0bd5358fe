# One item a slot, about 200 bytes each. On-demand billing: a steady server writes its heartbeat, one unit a second, and
# each client reads half a unit every INTERVAL, whatever the number of slots. No other attribute is declared: DynamoDB wants only the key here.
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
    enabled = true
  }

  deletion_protection_enabled = var.deletion_protection
  tags                        = var.tags
}
