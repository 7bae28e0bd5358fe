# One item a slot, about 200 bytes each. On-demand billing: a steady server writes nothing, and what the clients read follows
# from INTERVAL and their number. No other attribute is declared: DynamoDB wants only the key here.
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
