# hsdo on AWS: the table that both roles share, and an IAM policy for each.
#
#   terraform init
#   terraform apply -var table_name=hsdo
#
# Attach the policies in the outputs to the role of the machine (instance profile, ECS task role, EKS service account)
# that runs `hsdo --server` or `hsdo --client`, and set DYNAMODB_TABLE_NAME to the table's name on both.
# The region is the provider's.
#
# To create the table with `hsdo --create-table` instead, set create_table to false: only the policies are created then.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 4.59"
    }
  }
}
