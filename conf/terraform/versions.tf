# hsdo on AWS: its tables, a policy for each role and for operators, and the roles that machines and tasks run with. See README.md.

terraform {
  required_version = ">= 1.3"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 4.59"
    }
  }
}
