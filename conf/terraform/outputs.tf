output "table_name" {
  description = "DYNAMODB_TABLE_NAME for both roles."
  value       = var.table_name
}

output "server_policy_arn" {
  description = "Policy for machines that run hsdo --server."
  value       = aws_iam_policy.server.arn
}

output "client_policy_arn" {
  description = "Policy for machines that run hsdo --client."
  value       = aws_iam_policy.client.arn
}
