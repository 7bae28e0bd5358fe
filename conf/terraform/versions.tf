# hsdo on AWS: the table that its two roles share, and one IAM policy for each role.
#
#   terraform init
#   terraform apply -var table_name=hsdo
#
# Attach the policies in the outputs to the role of the machine (instance profile, ECS task role, EKS service account)
# that runs `hsdo --server` or `hsdo --client`, and set DYNAMODB_TABLE_NAME to the table's name on both.
# The region is the provider's: nothing here names one.
#
# To have `hsdo --create-table` make the table instead, set create_table to false: then only the policies are made here.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 4.59"
    }
  }
}
