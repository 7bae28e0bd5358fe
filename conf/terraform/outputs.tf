output "table_name" {
  description = "DYNAMODB_TABLE_NAME of both roles."
  value       = var.table_name
}

output "server_policy_arn" {
  description = "The policy for the machine that runs hsdo --server."
  value       = aws_iam_policy.server.arn
}

output "client_policy_arn" {
  description = "The policy for each machine that runs hsdo --client."
  value       = aws_iam_policy.client.arn
}
